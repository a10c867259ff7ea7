/**
 * U-Boot's environment as U-Boot itself reads it: one or two copies, each with a CRC, two with a counter. Only reading: written by
 * fw_setenv. Pure but for the region that it is given. docs/specs/partitions.md, section 5.
 */
import { crc32 } from 'node:zlib';
import { Problem } from '#/protocol/errors.ts';

export interface EnvLocation {
  readonly device: string;
  readonly offsetBytes: number;
  readonly sizeBytes: number;
}

/** Of the environment of any board that is known; a larger one is a mistake in the file. */
const ENV_MAX_BYTES = 1024 * 1024;
const MAX_COPIES = 2;

/** The places that `fw_env.config` names, one or two. E_BOOT when it says something else. */
export function parseEnvConfig(text: string): readonly EnvLocation[] {
  const lines = text.split('\n').map((line) => line.trim());
  const found = lines
    .filter((line) => line !== '' && !line.startsWith('#'))
    .map((line): EnvLocation => {
      const [device = '', offset, size] = line.split(/\s+/);
      const location = { device, offsetBytes: Number(offset), sizeBytes: hexadecimal(size) };
      const isGood =
        device.startsWith('/') &&
        Number.isSafeInteger(location.offsetBytes) &&
        location.offsetBytes >= 0 &&
        Number.isSafeInteger(location.sizeBytes) &&
        location.sizeBytes > 16 &&
        location.sizeBytes <= ENV_MAX_BYTES;
      if (isGood) return location;
      throw new Problem(
        'E_BOOT',
        `fw_env.config: not device, offset and size: ${line.slice(0, 200)}`,
      );
    });
  if (found.length >= 1 && found.length <= MAX_COPIES) return found;
  throw new Problem('E_BOOT', `fw_env.config names ${found.length} copies of the environment`);
}

/** The tools read the size as hexadecimal, with or without `0x`. */
function hexadecimal(text = ''): number {
  const digits = /^(?:0x)?([0-9a-f]+)$/i.exec(text)?.[1];
  return digits === undefined ? Number.NaN : Number.parseInt(digits, 16);
}

export interface UbootEnv {
  /** Null: no copy is valid; U-Boot then takes what was compiled in. */
  readonly values: ReadonlyMap<string, string> | null;
  readonly problems: readonly string[];
}

/** The environment that U-Boot takes of these copies, each of its whole size. */
export function readUbootEnv(copies: readonly Uint8Array[]): UbootEnv {
  const isRedundant = copies.length > 1;
  const parsed = copies.map((bytes) => {
    const buffer = Buffer.from(bytes);
    const data = buffer.subarray(isRedundant ? 5 : 4);
    return crc32(data) === buffer.readUInt32LE(0) ? { flag: buffer[4] ?? 0, data } : null;
  });
  const problems = parsed.flatMap((copy, index) =>
    copy === null ? [`copy ${index + 1} of the environment has a wrong checksum`] : [],
  );
  const [first = null, second = null] = parsed;
  const taken = first === null || second === null ? (first ?? second) : newer(first, second);
  return { values: taken === null ? null : valuesOf(taken.data), problems };
}

interface Copy {
  readonly flag: number;
  readonly data: Buffer;
}

/** The counter of one byte comes round: 0 follows 255. Equal: the first. */
function newer(first: Copy, second: Copy): Copy {
  if (first.flag === 255 && second.flag === 0) return second;
  if (second.flag === 255 && first.flag === 0) return first;
  return second.flag > first.flag ? second : first;
}

function valuesOf(data: Buffer): ReadonlyMap<string, string> {
  const end = data.indexOf('\0\0', 0, 'latin1');
  const text = data.toString('utf8', 0, end === -1 ? data.byteLength : end);
  return new Map(
    text.split('\0').flatMap((line) => {
      const equals = line.indexOf('=');
      return equals > 0 ? [[line.slice(0, equals), line.slice(equals + 1)] as const] : [];
    }),
  );
}
