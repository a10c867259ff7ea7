/** Variables of EFI firmware by efivarfs, and the form of a boot entry in them. docs/specs/partitions.md, section 4. */
import { constants } from 'node:fs';
import * as fs from 'node:fs/promises';
import { join } from 'node:path';
import { fileProblem } from '#/agent/adapters/file-port.ts';
import { Problem } from '#/protocol/errors.ts';

const GLOBAL = '8be4df61-93ca-11d2-aa0d-00e098032b8c';
/** Kept over boots, seen by firmware and system: what Boot#### must have. */
const ATTRIBUTES = 7;
const ACTIVE = 1;
const VARIABLE_MAX_BYTES = 64 * 1024;

/** Variables of the firmware by name; the value without its attributes. */
export interface EfiVariables {
  names(): Promise<readonly string[]>;
  read(name: string): Promise<Uint8Array | null>;
  /** One call of the firmware: the old value or the new one. */
  write(name: string, value: Uint8Array): Promise<void>;
  remove(name: string): Promise<void>;
}

/** efivarfs, mounted at `/sys/firmware/efi/efivars`. */
export function nodeVariables(directory: string): EfiVariables {
  const path = (name: string): string => join(directory, `${name}-${GLOBAL}`);
  return {
    names: () =>
      mapped('list', directory, async () =>
        (await fs.readdir(directory)).flatMap((file) =>
          file.endsWith(`-${GLOBAL}`) ? [file.slice(0, -GLOBAL.length - 1)] : [],
        ),
      ),
    async read(name) {
      try {
        const bytes = await fs.readFile(path(name));
        return bytes.byteLength < 4 || bytes.byteLength > VARIABLE_MAX_BYTES
          ? null
          : bytes.subarray(4);
      } catch (error) {
        if (error instanceof Error && 'code' in error && error.code === 'ENOENT') return null;
        throw error;
      }
    },
    write: (name, value) =>
      mapped('write', path(name), async () => {
        const bytes = Buffer.concat([Buffer.from([ATTRIBUTES, 0, 0, 0]), value]);
        const file = await fs.open(path(name), constants.O_WRONLY | constants.O_CREAT, 0o644);
        try {
          const { bytesWritten } = await file.write(bytes);
          if (bytesWritten !== bytes.byteLength) {
            throw new Problem(
              'E_IO',
              `write ${name}: ${bytesWritten} of ${bytes.byteLength} bytes`,
            );
          }
        } finally {
          await file.close();
        }
      }),
    remove: (name) =>
      mapped('unlink', path(name), async () => await fs.rm(path(name), { force: true })),
  };
}

async function mapped<T>(operation: string, path: string, run: () => Promise<T>): Promise<T> {
  try {
    return await run();
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.name !== 'Problem')
      throw fileProblem(operation, path, String(error.code), error);
    throw error;
  }
}

/** Where the firmware finds the ESP. */
export interface EspLocation {
  readonly number: number;
  readonly startSector: number;
  readonly sectors: number;
  readonly partUuid: string;
}

/** A Boot#### that starts `path` (with backslashes) of the ESP. */
export function encodeEntry(description: string, esp: EspLocation, path: string): Uint8Array {
  const disk = Buffer.alloc(42);
  disk.set([4, 1, 42, 0]);
  disk.writeUInt32LE(esp.number, 4);
  disk.writeBigUInt64LE(BigInt(esp.startSector), 8);
  disk.writeBigUInt64LE(BigInt(esp.sectors), 16);
  disk.set(guidBytes(esp.partUuid), 24);
  disk.set([2, 2], 40);
  const name = utf16(path);
  const file = Buffer.concat([Buffer.from([4, 4, 0, 0]), name]);
  file.writeUInt16LE(file.byteLength, 2);
  const devices = Buffer.concat([disk, file, Buffer.from([0x7f, 0xff, 4, 0])]);
  const head = Buffer.alloc(6);
  head.writeUInt32LE(ACTIVE, 0);
  head.writeUInt16LE(devices.byteLength, 4);
  return Buffer.concat([head, utf16(description), devices]);
}

/** Description of an entry, and the path of its file; null when it is none. */
export function decodeEntry(
  value: Uint8Array,
): { readonly description: string; readonly path: string | null } | null {
  const bytes = Buffer.from(value);
  if (bytes.byteLength < 8) return null;
  const devicesBytes = bytes.readUInt16LE(4);
  const [description, start] = textAt(bytes, 6, bytes.byteLength);
  const end = Math.min(start + devicesBytes, bytes.byteLength);
  for (let at = start; at + 4 <= end; ) {
    const size = bytes.readUInt16LE(at + 2);
    if (size < 4) break;
    if (bytes[at] === 4 && bytes[at + 1] === 4)
      return { description, path: textAt(bytes, at + 4, Math.min(at + size, end))[0] };
    at += size;
  }
  return { description, path: null };
}

/** UTF-16 up to its end mark, and where it goes on behind. */
function textAt(bytes: Buffer, from: number, end: number): readonly [string, number] {
  let at = from;
  while (at + 2 <= end && bytes.readUInt16LE(at) !== 0) at += 2;
  return [bytes.toString('utf16le', from, at), at + 2];
}

const utf16 = (text: string): Buffer => Buffer.from(`${text}\0`, 'utf16le');

/** The first three parts of a GUID are little-endian. */
function guidBytes(uuid: string): Uint8Array {
  const plain = Buffer.from(uuid.replaceAll('-', ''), 'hex');
  const order = [3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15];
  return Uint8Array.from(order, (index) => plain[index] ?? 0);
}
