/**
 * What a service is given of its config set: one file for each entry, in a directory of its own below a directory in memory.
 * Nothing of it is ever on a disk, in a slot, a log, an argument or a report. docs/specs/config-sets.md, section 4.
 */
import {
  chmodSync,
  chownSync,
  closeSync,
  fchownSync,
  lstatSync,
  mkdirSync,
  openSync,
  readdirSync,
  readlinkSync,
  renameSync,
  rmSync,
  statfsSync,
  symlinkSync,
  unlinkSync,
  writeSync,
} from 'node:fs';
import { join } from 'node:path';
import type { Configs } from '#/agent/ports.ts';
import type { ConfigEntry } from '#/bundle/config-set.ts';
import { Problem } from '#/protocol/errors.ts';
import {
  artifactOf,
  configOf,
  type ConfigId,
  type HostId,
  type VersionId,
} from '#/protocol/ids.ts';
import type { ConfigStore } from './config-store.ts';

/** The environment variable that holds the path of the directory. */
export const CONFIG_VARIABLE = 'SWITCHBACK_CONFIG_DIR';
/** `statfs` of file systems that are memory. */
const TMPFS = 0x01021994;
const RAMFS = 0x858458f6;
const CONFIG_ID = /^[0-9a-f]{64}$/;

export interface SecretsOptions {
  readonly store: ConfigStore;
  /** `config.directory`: the directories of config sets stand in it. */
  readonly directory: string;
  /** A link in it, `config`, points to the directory of the version that runs: for units, which get no variable. */
  readonly runDirectory: string;
  readonly host: HostId;
  /** Secret halves of the keys that secrets are sealed to, the newest first. */
  readonly sealSecrets: () => readonly Uint8Array[];
  /** Who reads the files; null: the agent's account. */
  readonly owner: { readonly uid: number; readonly gid: number } | null;
  /** `config.allow_disk`: a directory that is not in memory is taken all the same. */
  readonly allowDisk: boolean;
}

/** Where the entries of a version are found; null for a version without a config set. */
export function secretsPath(directory: string, version: VersionId): string | null {
  const configId = configOf(version);
  return configId === null ? null : join(directory, configId);
}

/** The config sets of this host. */
export function createSecrets(options: SecretsOptions): Configs {
  const { store, directory, runDirectory } = options;
  const link = join(runDirectory, 'config');
  const provided = async (version: VersionId): Promise<string | null> => {
    const path = secretsPath(directory, version);
    const configId = configOf(version);
    if (path === null || configId === null) return null;
    // Renamed into its place when it was whole.
    if (isDirectory(path)) return path;
    const entries = await open(version);
    openRoot();
    write(configId, entries);
    return path;
  };

  const open = async (version: VersionId): Promise<readonly ConfigEntry[]> => {
    const kept = await store.read(version);
    if (kept === null) {
      throw new Problem('E_STATE', `the config set of ${version} is not kept on this host`);
    }
    const { openEntries, readConfigSet } = await import('#/bundle/config-set.ts');
    const known = readConfigSet(kept.setBytes);
    const { host, sealSecrets } = options;
    return openEntries(known, kept, host, artifactOf(version), sealSecrets());
  };

  /** The directory, in memory, that others may pass through but not list. */
  const openRoot = (): void => {
    mkdirSync(directory, { recursive: true, mode: 0o711 });
    const found = lstatSync(directory);
    if (!found.isDirectory()) throw new Problem('E_CONFIG', `${directory} is no directory`);
    const { type } = statfsSync(directory);
    if (type !== TMPFS && type !== RAMFS && !options.allowDisk) {
      throw new Problem(
        'E_CONFIG',
        `config.directory ${directory} is not in memory (tmpfs): secrets would be on a disk`,
        { path: directory },
      );
    }
    if (options.owner === null) return;
    // The account of the service has to reach its files; it can list neither directory.
    chmodSync(directory, 0o711);
    if (directory.startsWith(`${runDirectory}/`)) chmodSync(runDirectory, 0o711);
  };

  const write = (configId: ConfigId, entries: readonly ConfigEntry[]): void => {
    const fresh = join(directory, `.new-${configId}`);
    rmSync(fresh, { recursive: true, force: true });
    mkdirSync(fresh, { mode: 0o700 });
    const { owner } = options;
    for (const { name, bytes } of entries) {
      const file = openSync(join(fresh, name), 'wx', 0o400);
      try {
        for (let done = 0; done < bytes.length; ) done += writeSync(file, bytes, done);
        if (owner !== null) fchownSync(file, owner.uid, owner.gid);
      } finally {
        closeSync(file);
      }
    }
    if (owner !== null) chownSync(fresh, owner.uid, owner.gid);
    renameSync(fresh, join(directory, configId));
  };

  return {
    keep: (version, config) => store.keep(version, config),
    kept: () => store.list(),
    prune: (keep) => store.prune(keep),
    provide: provided,
    async point(version) {
      const path = version === null ? null : secretsPath(directory, version);
      if (path === null) {
        rmSync(link, { force: true });
        return;
      }
      if (linkedTo(link) === path) return;
      mkdirSync(runDirectory, { recursive: true, mode: 0o700 });
      rmSync(`${link}.tmp`, { force: true });
      symlinkSync(path, `${link}.tmp`);
      renameSync(`${link}.tmp`, link);
    },
    async wipeAllBut(version) {
      if (!isDirectory(directory)) return;
      const kept = version === null ? null : configOf(version);
      for (const name of readdirSync(directory)) {
        const isOurs = CONFIG_ID.test(name.replace(/^\.new-/, ''));
        if (!isOurs || name === kept) continue;
        wipe(join(directory, name));
      }
    },
  };
}

/** Overwritten before they are removed: the pages of a file in memory go back to the system as they are. */
function wipe(path: string): void {
  for (const name of readdirSync(path)) {
    const file = join(path, name);
    const { size } = lstatSync(file);
    chmodSync(file, 0o600);
    const handle = openSync(file, 'r+');
    try {
      const zeros = new Uint8Array(size);
      for (let done = 0; done < size; ) done += writeSync(handle, zeros, done, size - done, done);
    } finally {
      closeSync(handle);
    }
    unlinkSync(file);
  }
  rmSync(path, { recursive: true, force: true });
}

function isDirectory(path: string): boolean {
  return lstatSync(path, { throwIfNoEntry: false })?.isDirectory() === true;
}

function linkedTo(path: string): string | null {
  const found = lstatSync(path, { throwIfNoEntry: false });
  return found?.isSymbolicLink() === true ? readlinkSync(path) : null;
}
