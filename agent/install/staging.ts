/**
 * The staging directory around the chunks: made or cleaned before they come, finished and synced after (D2, D3). Links are
 * made last, so that nothing is ever written through one. Only root reaches into it (mode 0700).
 */
import { execFile } from 'node:child_process';
import {
  chmodSync,
  chownSync,
  closeSync,
  constants,
  fsyncSync,
  linkSync,
  lstatSync,
  mkdirSync,
  openSync,
  readdirSync,
  rmSync,
  symlinkSync,
} from 'node:fs';
import { promisify } from 'node:util';
import { Problem } from '#/protocol/errors.ts';
import { attempt } from './target-files.ts';
import type { WritePlan } from './write-plan.ts';

const THERE = 2;
const SYNCFS_TIMEOUT_MS = 10 * 60_000;

/** Removes a directory with all in it, also read-only directories of one's own. Nothing there is fine. */
export function removeTree(path: string): void {
  const openUp = (directory: string): void => {
    chmodSync(directory, 0o700);
    for (const entry of readdirSync(directory, { withFileTypes: true })) {
      if (entry.isDirectory()) openUp(`${directory}/${entry.name}`);
    }
  };
  attempt('remove', path, () => {
    if (lstatSync(path, { throwIfNoEntry: false })?.isDirectory()) openUp(path);
    rmSync(path, { recursive: true, force: true });
  });
}

/**
 * Makes the directories of the plan below `staging`, which exists. What an interrupted run left is kept where it fits the
 * plan, and marked in `created`; everything else there is removed. Gives true when something was kept.
 */
export function prepareStaging(staging: string, plan: WritePlan, created: Int32Array): boolean {
  const directories = new Set(plan.directories.map(({ path }) => path));
  const files = new Map(plan.files.map(({ path }, number) => [path, number]));
  const shared: { readonly path: string; readonly file: number }[] = [];
  let isResumed = false;
  const keep = (path: string, file: number, mode: number): void => {
    if ((mode & 0o600) !== 0o600) chmodSync(path, 0o600);
    created[file] = THERE;
    isResumed = true;
  };
  const clean = (directory: string): void => {
    for (const name of readdirSync(directory)) {
      const path = `${directory}/${name}`;
      const found = lstatSync(path);
      const file = files.get(path);
      if (directories.has(path) && found.isDirectory()) {
        chmodSync(path, 0o700);
        clean(path);
      } else if (file !== undefined && found.isFile()) {
        if (found.nlink === 1) keep(path, file, found.mode);
        else shared.push({ path, file });
      } else {
        // Links are made anew at the end.
        removeTree(path);
      }
    }
  };
  attempt('prepare', staging, () => {
    clean(staging);
    // The hard links of the plan are gone now. What is shared still is so with something outside, and is never written to.
    for (const { path, file } of shared) {
      const { nlink, mode } = lstatSync(path);
      if (nlink === 1) keep(path, file, mode);
      else removeTree(path);
    }
    for (const { path } of plan.directories) {
      if (lstatSync(path, { throwIfNoEntry: false }) === undefined) mkdirSync(path, 0o700);
    }
  });
  return isResumed;
}

/** Links, then owners and modes of directories, children first. Files are finished by the workers before. */
export function finishStaging(staging: string, plan: WritePlan, setOwners: boolean): void {
  attempt('finish', staging, () => {
    for (const { path, target } of plan.hardlinks) linkSync(target, path);
    for (const { path, target } of plan.symlinks) symlinkSync(target, path);
    for (const { path, mode, uid, gid } of plan.directories.toReversed()) {
      if (setOwners) chownSync(path, uid, gid);
      chmodSync(path, mode);
    }
    // The slot itself: root's, readable by those who run from it.
    chmodSync(staging, 0o755);
  });
}

/** Syncs the directories of the plan, children first, and `staging`. Files were synced before. */
export function syncDirectories(staging: string, plan: WritePlan): void {
  for (const { path } of plan.directories.toReversed()) syncDirectory(path);
  syncDirectory(staging);
}

function syncDirectory(path: string): void {
  const { O_RDONLY, O_DIRECTORY, O_NOFOLLOW } = constants;
  const descriptor = attempt('open', path, () =>
    openSync(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW),
  );
  try {
    attempt('fsync', path, () => fsyncSync(descriptor));
  } finally {
    closeSync(descriptor);
  }
}

/**
 * syncfs(2) through sync(1): one flush for a tree of many files, directories included. False when there is no such program:
 * then each file is synced. A failed flush is E_IO and is not tried again: the kernel reports an error only once.
 */
export async function syncFileSystem(path: string): Promise<boolean> {
  try {
    await promisify(execFile)('sync', ['-f', path], {
      timeout: SYNCFS_TIMEOUT_MS,
      env: { PATH: '/usr/sbin:/usr/bin:/sbin:/bin', LC_ALL: 'C' },
    });
    return true;
  } catch (error) {
    const code = error instanceof Error && 'code' in error ? error.code : null;
    if (code === 'ENOENT' || code === 'EACCES') return false;
    throw new Problem('E_IO', `sync of the file system of ${path} failed`, {}, { cause: error });
  }
}
