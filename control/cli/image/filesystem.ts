/** File systems as files: ext4 by mke2fs, without mounting anything. The same directory gives the same bytes. */
import { open, readdir, lstat, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { settleInodes } from './ext4-times.ts';
import { MIB } from './layout.ts';
import { runProgram } from './programs.ts';
import { Problem } from '#/protocol/errors.ts';

export interface FilesystemOptions {
  /** What it holds. */
  readonly directory: string;
  readonly out: string;
  readonly label: string;
  readonly uuid: string;
  readonly sourceDateEpoch: number;
  readonly signal: AbortSignal;
}

const BLOCK = 4096;
const INODE_BYTES = 256;
/** Every feature by name: what another version of mke2fs takes for its default must not change the image. */
const ROOT_FEATURES =
  'none,extent,filetype,dir_index,sparse_super,large_file,huge_file,dir_nlink,extra_isize,ext_attr,flex_bg';
const DATA_FEATURES = `${ROOT_FEATURES},has_journal,metadata_csum,64bit,resize_inode`;

/** A root that is only ever read: no journal, no room to grow. Resolves with its size in bytes. */
export async function makeRootFilesystem(
  options: FilesystemOptions,
  limitBytes: number,
): Promise<number> {
  const { contentBytes, inodes } = await measure(options.directory);
  const wanted = contentBytes + inodes * INODE_BYTES;
  const sizeBytes = Math.ceil((wanted * 1.02 + 8 * MIB) / MIB) * MIB;
  if (sizeBytes > limitBytes)
    throw new Problem(
      'E_SPACE',
      `the root needs ${sizeBytes} bytes, a slot has ${limitBytes}: give a larger --slot-size`,
    );
  await format(options, sizeBytes, ROOT_FEATURES, ['-N', String(inodes + 64), '-m', '0']);
  await settleInodes(options.out, options.sourceDateEpoch);
  return sizeBytes;
}

/** The persistent one, with a journal. */
export async function makeDataFilesystem(
  options: FilesystemOptions,
  sizeBytes: number,
): Promise<void> {
  await format(options, sizeBytes, DATA_FEATURES, ['-m', '1']);
}

async function format(
  options: FilesystemOptions,
  sizeBytes: number,
  features: string,
  more: readonly string[],
): Promise<void> {
  await rm(options.out, { force: true });
  await using file = await open(options.out, 'wx');
  await file.truncate(sizeBytes);
  await runProgram(
    [
      'mke2fs',
      '-q',
      '-F',
      '-t',
      'ext4',
      '-b',
      String(BLOCK),
      '-I',
      String(INODE_BYTES),
      '-O',
      features,
      '-U',
      options.uuid,
      '-L',
      options.label,
      '-E',
      `hash_seed=${options.uuid},root_owner=0:0,lazy_itable_init=0,lazy_journal_init=0,nodiscard`,
      ...more,
      '-d',
      options.directory,
      options.out,
    ],
    {
      signal: options.signal,
      env: {
        E2FSPROGS_FAKE_TIME: String(options.sourceDateEpoch),
        SOURCE_DATE_EPOCH: String(options.sourceDateEpoch),
      },
    },
  );
}

/** What a tree takes in blocks, hard links once, and how many inodes. */
async function measure(
  directory: string,
): Promise<{ readonly contentBytes: number; readonly inodes: number }> {
  const seen = new Set<string>();
  let [contentBytes, inodes] = [0, 0];
  const queue = [directory];
  for (let path = queue.pop(); path !== undefined; path = queue.pop()) {
    for (const entry of await readdir(path, { withFileTypes: true })) {
      const child = join(path, entry.name);
      const found = await lstat(child);
      if (found.nlink > 1 && !found.isDirectory()) {
        const id = `${found.dev}:${found.ino}`;
        if (seen.has(id)) continue;
        seen.add(id);
      }
      inodes += 1;
      if (found.isDirectory()) queue.push(child);
      if (found.isFile() || found.isDirectory() || found.size >= 60)
        contentBytes += Math.ceil(found.size / BLOCK) * BLOCK;
    }
  }
  return { contentBytes, inodes };
}
