/** BootControl of a directory host: the link `current` is the boot record (D8, D11, D14; durability recipe 2). */
import type { BootControl, FilePort } from '#/agent/ports.ts';

export interface DirectoryBootOptions {
  /** Directory that holds releases/, current and previous. */
  readonly root: string;
  readonly files: FilePort;
}

export type CreateDirectoryBootControl = (options: DirectoryBootOptions) => BootControl;
