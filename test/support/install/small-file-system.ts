/** Small file systems of their own: for a disk that is really full, and a device that is really a device. Need root. */
import { execFile } from 'node:child_process';
import { mkdir, open, rmdir } from 'node:fs/promises';
import { promisify } from 'node:util';

const run = promisify(execFile);

/** Why mounts cannot be tested here, or null: root claims that they can, and then a failure is a failure. */
export function whyNoMounts(): string | null {
  return process.getuid?.() === 0 ? null : 'mounting a file system needs root';
}

export interface SmallFileSystem extends AsyncDisposable {
  readonly path: string;
  /** A new size; nothing that is there is lost. */
  resize(options: string): Promise<void>;
}

/** A tmpfs at `path`, which is made. `options`: as for mount -o, e.g. `size=4m`. */
export async function mountTmpfs(path: string, options: string): Promise<SmallFileSystem> {
  await mkdir(path, { recursive: true });
  await run('mount', ['-t', 'tmpfs', '-o', options, 'tmpfs', path]);
  return {
    path,
    resize: async (changed) => {
      await run('mount', ['-o', `remount,${changed}`, path]);
    },
    async [Symbol.asyncDispose]() {
      await run('umount', [path]);
      await rmdir(path);
    },
  };
}

export interface LoopDevice extends AsyncDisposable {
  readonly path: string;
}

/** A block device of `sizeBytes` over a file; its old content is `fill` in every byte. */
export async function attachLoop(
  backing: string,
  sizeBytes: number,
  fill: number,
): Promise<LoopDevice> {
  {
    await using file = await open(backing, 'wx');
    const block = Buffer.alloc(1024 * 1024, fill);
    for (let at = 0; at < sizeBytes; at += block.length) {
      await file.write(block, 0, Math.min(block.length, sizeBytes - at), at);
    }
    await file.sync();
  }
  return await attachExisting(backing);
}

/** A block device over a file that is there. */
export async function attachExisting(backing: string): Promise<LoopDevice> {
  const { stdout } = await run('losetup', ['--show', '-f', backing]);
  const path = stdout.trim();
  return {
    path,
    async [Symbol.asyncDispose]() {
      await run('losetup', ['-d', path]);
    },
  };
}
