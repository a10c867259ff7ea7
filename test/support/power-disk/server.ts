/**
 * A disk that remembers what it was asked for: one regular file, served over /dev/fuse, for a loop device to lie on. Started as
 * `node server.ts TARGET SIZE_BYTES LOG`; TARGET is an existing file that the disk is mounted over. It serves with blocking reads
 * on its only thread, and ends when the mount does.
 *
 * A process of its own, always: a server that held the last reference to a file system on its own disk would wait for itself
 * in its exit, and every sync() of the machine with it.
 */
import { spawnSync } from 'node:child_process';
import { openSync, readSync, writeSync } from 'node:fs';
import { recordHead } from './log.ts';

const [target = '', sizeText = '', logPath = ''] = process.argv.slice(2);
const sizeBytes = Number(sizeText);
const MAX_WRITE_BYTES = 1024 * 1024;
const HEAD_BYTES = 40;

const op = {
  forget: 2,
  getattr: 3,
  setattr: 4,
  open: 14,
  read: 15,
  write: 16,
  statfs: 17,
  release: 18,
  fsync: 20,
  flush: 25,
  init: 26,
  access: 34,
  interrupt: 36,
  destroy: 38,
  batchForget: 42,
} as const;
const ENOSYS = 38;

const disk = Buffer.alloc(sizeBytes);
const log = openSync(logPath, 'w');
const device = openSync('/dev/fuse', 'r+');

// A regular file as the root of the mount: then the mount itself is the disk.
const options = 'fd=3,rootmode=100000,user_id=0,group_id=0,allow_other';
const mounted = spawnSync('mount', ['-i', '-t', 'fuse', '-o', options, 'power-disk', target], {
  stdio: ['ignore', 'inherit', 'inherit', device],
});
if (mounted.status !== 0) process.exit(1);
process.stdout.write('mounted\n');
serve();

function serve(): void {
  const buffer = Buffer.alloc(MAX_WRITE_BYTES + 4096);
  for (;;) {
    let length = 0;
    try {
      length = readSync(device, buffer);
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException;
      if (code === 'EINTR' || code === 'EAGAIN' || code === 'ENOENT') continue;
      // ENODEV: unmounted. Not an orderly exit, which could wait for a thread that never returns.
      process.kill(process.pid, 'SIGKILL');
      return;
    }
    answer(buffer.subarray(0, length));
  }
}

function answer(request: Buffer): void {
  const code = request.readUInt32LE(4);
  const body = request.subarray(HEAD_BYTES);
  switch (code) {
    case op.forget:
    case op.batchForget:
    case op.interrupt:
      return;
    case op.init:
      return reply(request, initAnswer(body));
    case op.getattr:
    case op.setattr:
      return reply(request, attributes());
    case op.open: {
      const opened = Buffer.alloc(16);
      // FOPEN_DIRECT_IO: no second page cache between the loop device and the log.
      opened.writeUInt32LE(1, 8);
      return reply(request, opened);
    }
    case op.read: {
      const offset = Number(body.readBigUInt64LE(8));
      return reply(request, disk.subarray(offset, offset + body.readUInt32LE(16)));
    }
    case op.write: {
      const offset = Number(body.readBigUInt64LE(8));
      const length = body.readUInt32LE(16);
      const bytes = body.subarray(40, 40 + length);
      bytes.copy(disk, offset);
      writeAll(recordHead('write', offset, length));
      writeAll(bytes);
      const written = Buffer.alloc(8);
      written.writeUInt32LE(length, 0);
      return reply(request, written);
    }
    case op.fsync:
      writeAll(recordHead('flush', 0, 0));
      return reply(request, Buffer.alloc(0));
    case op.statfs:
      return reply(request, Buffer.alloc(80));
    case op.release:
    case op.flush:
    case op.access:
    case op.destroy:
      return reply(request, Buffer.alloc(0));
    default:
      return reply(request, Buffer.alloc(0), -ENOSYS);
  }
}

function initAnswer(body: Buffer): Buffer {
  const made = Buffer.alloc(64);
  made.writeUInt32LE(7, 0);
  made.writeUInt32LE(31, 4);
  made.writeUInt32LE(body.readUInt32LE(8), 8);
  // Big writes, and as many pages at once as a write may have.
  made.writeUInt32LE((1 << 5) | (1 << 22), 12);
  made.writeUInt16LE(16, 16);
  made.writeUInt16LE(12, 18);
  made.writeUInt32LE(MAX_WRITE_BYTES, 20);
  made.writeUInt32LE(1, 24);
  made.writeUInt16LE(MAX_WRITE_BYTES / 4096, 28);
  return made;
}

function attributes(): Buffer {
  const made = Buffer.alloc(104);
  made.writeBigUInt64LE(3600n, 0);
  made.writeBigUInt64LE(1n, 16);
  made.writeBigUInt64LE(BigInt(sizeBytes), 24);
  made.writeBigUInt64LE(BigInt(sizeBytes / 512), 32);
  // A regular file, 0600, one link.
  made.writeUInt32LE(0o100600, 76);
  made.writeUInt32LE(1, 80);
  made.writeUInt32LE(4096, 96);
  return made;
}

function reply(request: Buffer, body: Uint8Array, error = 0): void {
  const head = Buffer.alloc(16);
  head.writeUInt32LE(16 + body.length, 0);
  head.writeInt32LE(error, 4);
  request.copy(head, 8, 8, 16);
  writeSync(device, body.length === 0 ? head : Buffer.concat([head, body]));
}

function writeAll(bytes: Uint8Array): void {
  let done = 0;
  while (done < bytes.length) done += writeSync(log, bytes, done);
}
