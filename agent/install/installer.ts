/**
 * The Installer of directory hosts: from the sources of an offer into the staging directory of its slot, and from there,
 * read back and compared, to `releases/<artifactId>`. The heavy part runs in a child process (child.ts).
 */
import type { Installer, Slots } from '#/agent/ports.ts';
import type { InstallSettings } from './settings.ts';
import type { RequestHeaders } from './source.ts';

export interface InstallerOptions {
  /** Directory that holds releases/, current and previous. */
  readonly root: string;
  /** Marks `written` and `verified`. */
  readonly slots: Slots;
  readonly settings: InstallSettings;
  /** Headers of each request to a source; null: none. */
  readonly requestHeaders: RequestHeaders | null;
  /** `child`: the heavy part in its own process, as shipped. `here`: in this process, for tests. */
  readonly run: 'child' | 'here';
}

/**
 * `offer.sources` are http, https and file URLs. Problems of download: those of source.ts, E_ARTIFACT, E_CHUNK, E_PATH,
 * E_MODE, E_SIZE, E_SPACE, E_IO. Of verify: E_SLOT, E_IO.
 */
export type CreateDirectoryInstaller = (options: InstallerOptions) => Installer;
