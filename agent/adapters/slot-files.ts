/**
 * A slot that does not run, mounted to read its boot files (P5). Nothing in it is started, followed out of it or written:
 * read-only also for the journal of its file system, so that the bytes stay those that were read back.
 */
import { mkdirSync } from 'node:fs';
import { lstat, open, readFile, readlink } from 'node:fs/promises';
import { join, posix } from 'node:path';
import { Problem } from '#/protocol/errors.ts';
import type { BlockDevice } from './block-devices.ts';
import { describeExit, type Exec } from './exec.ts';
import { mountTable } from './mount-table.ts';

const MOUNT_TIMEOUT_MS = 60_000;
const UMOUNT_TRIES = 20;
const UMOUNT_PAUSE_MS = 250;
const MAX_LINKS = 16;
const OPTIONS = 'ro,nosuid,nodev,noexec';

/** File systems that a slot may hold, by their magic numbers, and what keeps a read-only mount from writing. */
const kinds = [
  { kind: 'ext4', at: 1080, magic: '53ef', options: 'noload' },
  { kind: 'erofs', at: 1024, magic: 'e2e1f5e0', options: null },
  { kind: 'squashfs', at: 0, magic: '68737173', options: null },
  { kind: 'xfs', at: 0, magic: '58465342', options: 'norecovery' },
] as const;

/** Mounts the device at `mountPoint`, runs `use`, and unmounts. @throws Problem E_SLOT: it cannot be mounted. */
export async function withMounted<T>(
  exec: Exec,
  device: BlockDevice,
  mountPoint: string,
  use: (root: string) => Promise<T>,
): Promise<T> {
  await unmountLeftover(exec, mountPoint);
  mkdirSync(mountPoint, { recursive: true, mode: 0o700 });
  const { kind, options } = await fileSystemOf(device);
  const all = options === null ? OPTIONS : `${OPTIONS},${options}`;
  const argv = ['mount', '-n', '-t', kind, '-o', all, device.path, mountPoint];
  const mounted = await exec.run({ argv, timeoutMs: MOUNT_TIMEOUT_MS });
  if (mounted.code !== 0) {
    throw new Problem('E_SLOT', `mount ${device.path}: ${describeExit(mounted)}`, {
      path: device.path,
    });
  }
  try {
    return await use(mountPoint);
  } finally {
    await unmount(exec, mountPoint);
  }
}

/** What an agent that was killed in the middle has left mounted. */
export async function unmountLeftover(exec: Exec, mountPoint: string): Promise<void> {
  const table = mountTable(await readFile('/proc/self/mountinfo', 'utf8'));
  if (table.some((entry) => entry.mountPoint === mountPoint)) await unmount(exec, mountPoint);
}

/** Never lazily: the device would stay in use out of sight. */
async function unmount(exec: Exec, mountPoint: string): Promise<void> {
  for (let tries = 1; ; tries += 1) {
    const argv = ['umount', '-n', mountPoint];
    const result = await exec.run({ argv, timeoutMs: MOUNT_TIMEOUT_MS });
    if (result.code === 0) return;
    if (tries === UMOUNT_TRIES) {
      throw new Problem('E_BUSY', `umount ${mountPoint}: ${describeExit(result)}`, {
        path: mountPoint,
      });
    }
    await new Promise((resolve) => setTimeout(resolve, UMOUNT_PAUSE_MS));
  }
}

async function fileSystemOf(device: BlockDevice): Promise<(typeof kinds)[number]> {
  const head = Buffer.alloc(4096);
  {
    await using file = await open(device.path, 'r');
    await file.read(head, 0, head.byteLength, 0);
  }
  const found = kinds.find(
    ({ at, magic }) => head.toString('hex', at, at + magic.length / 2) === magic,
  );
  if (found !== undefined) return found;
  const known = kinds.map(({ kind }) => kind).join(', ');
  throw new Problem('E_SLOT', `the image in ${device.path} is no file system of ${known}`, {
    path: device.path,
  });
}

/**
 * The real path of `path` in the tree at `root`, links followed as if `root` were the root directory; null when nothing is
 * there. @throws Problem E_SLOT: too many links.
 */
export async function resolveInside(root: string, path: string): Promise<string | null> {
  let left = posix.normalize(path).split('/').filter(Boolean);
  let at: string[] = [];
  for (let links = 0; left.length > 0; ) {
    const [next = '', ...rest] = left;
    left = rest;
    if (next === '..') {
      at = at.slice(0, -1);
      continue;
    }
    const candidate = join(root, ...at, next);
    const found = await lstat(candidate).catch(() => null);
    if (found === null) return null;
    if (!found.isSymbolicLink()) {
      at = [...at, next];
      continue;
    }
    links += 1;
    if (links > MAX_LINKS) throw new Problem('E_SLOT', `${path} in the image: too many links`);
    const target = await readlink(candidate);
    if (target.startsWith('/')) at = [];
    left = [...target.split('/').filter((part) => part !== '' && part !== '.'), ...left];
  }
  return join(root, ...at);
}
