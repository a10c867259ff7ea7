/** Root images for partition slots: small ext4 file systems with a kernel and an initrd in them, made without a mount. */
import { execFile } from 'node:child_process';
import { mkdir, mkdtemp, rm, symlink, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { promisify } from 'node:util';
import { softwareLike } from '#/test/support/install/payloads.ts';

const run = promisify(execFile);

export interface RootImage {
  readonly out: string;
  readonly version: string;
  readonly sizeBytes: number;
  /** More files, by path in the image. */
  readonly files?: Readonly<Record<string, string>>;
  /** Directories to mount things on. */
  readonly directories?: readonly string[];
  /** Symbolic links, by path in the image. */
  readonly links?: Readonly<Record<string, string>>;
  /** Without a kernel it cannot be booted. */
  readonly kernel?: boolean;
}

/** Makes an image; large parts are the same in every version, and most of it is a hole. */
export async function makeRootImage(image: RootImage): Promise<void> {
  const { out, version, sizeBytes } = image;
  const tree = await mkdtemp(join(tmpdir(), 'root-image-'));
  try {
    const put = async (path: string, content: string | Uint8Array): Promise<void> => {
      await mkdir(dirname(join(tree, path)), { recursive: true });
      await writeFile(join(tree, path), content);
    };
    for (const path of ['proc', 'sys', 'dev', 'run', 'tmp', ...(image.directories ?? [])]) {
      await mkdir(join(tree, path), { recursive: true });
    }
    await put('usr/lib/large', softwareLike(2_000_000, 7));
    await put('etc/version', `${version}\n`);
    await put('etc/kernel/cmdline', 'quiet panic=5\n');
    if (image.kernel !== false) {
      await put('boot/vmlinuz-6.1', softwareLike(300_000, version.length));
      await put('boot/initrd.img-6.1', `initrd of ${version}\n`);
      await symlink('vmlinuz-6.1', join(tree, 'boot/vmlinuz'));
      await symlink('/boot/initrd.img-6.1', join(tree, 'boot/initrd.img'));
    }
    for (const [path, target] of Object.entries(image.links ?? {})) {
      await symlink(target, join(tree, path));
    }
    for (const [path, content] of Object.entries(image.files ?? {})) await put(path, content);
    await writeFile(out, '');
    await truncate(out, sizeBytes);
    // No journal: a slot is read-only, and a boot loader reads what is there, not what a journal would make of it.
    const features = ['-O', '^has_journal', '-m', '0', '-E', 'root_owner=0:0'];
    await run('mke2fs', ['-q', '-F', '-t', 'ext4', '-b', '4096', ...features, '-d', tree, out]);
  } finally {
    await rm(tree, { recursive: true, force: true });
  }
}
