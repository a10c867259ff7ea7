/**
 * The bundle file: a plain tar with five members in a fixed order. Pure functions over its bytes: headers to write, and
 * where the members lie, found from the first bytes of the file. Format: docs/specs/bundle-format.md, section 1.
 */
import { ENVELOPE_MAX_BYTES } from '#/bundle/dsse.ts';
import { INDEX_MAX_BYTES } from '#/bundle/chunk-index.ts';
import { MANIFEST_MAX_BYTES } from '#/bundle/manifest.ts';
import { Problem } from '#/protocol/errors.ts';

/** What an HTTP reader asks for first: holds everything in front of the index of all but unusual bundles. */
export const LEADING_BYTES = 128 * 1024;
export const ATTESTATIONS_MAX_BYTES = 16 * 1024 * 1024;
export const BLOCK_BYTES = 512;
/** The end of the archive: two blocks of zeros. */
export const TRAILER_BYTES = 2 * BLOCK_BYTES;

export const memberNames = [
  'manifest.json',
  'manifest.dsse.json',
  'attestations.intoto.jsonl',
  'chunks.index',
  'chunks.data',
] as const;
export type MemberName = (typeof memberNames)[number];

const memberLimits: Readonly<Record<MemberName, number>> = {
  'manifest.json': MANIFEST_MAX_BYTES,
  'manifest.dsse.json': ENVELOPE_MAX_BYTES,
  'attestations.intoto.jsonl': ATTESTATIONS_MAX_BYTES,
  // An incompressible index grows by its frame's overhead.
  'chunks.index': INDEX_MAX_BYTES + 64 * 1024,
  'chunks.data': Number.MAX_SAFE_INTEGER - 2 ** 32,
};

/** Where a member's content lies in the file. */
export interface Member {
  readonly offset: number;
  readonly sizeBytes: number;
}

export interface Located {
  readonly manifest: Member;
  readonly envelope: Member;
  readonly attestations: Member;
  readonly index: Member;
  /** The header of chunks.data, right behind the index: fetch it with the index and give it to `checkDataHeader`. */
  readonly dataHeader: Member;
  /** Where chunks.data starts; its size is `dataBytes` of the manifest. */
  readonly dataOffset: number;
}

/**
 * Finds the members from the first bytes of a bundle file. `needBytes`: so many leading bytes are needed first (they then
 * hold manifest, envelope and attestations completely). Throws E_SCHEMA or E_SIZE for anything but a bundle.
 */
export function locateMembers(leading: Uint8Array): Located | { readonly needBytes: number } {
  const found: Member[] = [];
  let at = 0;
  for (const name of memberNames.slice(0, 4)) {
    if (leading.byteLength < at + BLOCK_BYTES) return { needBytes: at + BLOCK_BYTES };
    const sizeBytes = parseHeader(leading.subarray(at, at + BLOCK_BYTES), name);
    found.push({ offset: at + BLOCK_BYTES, sizeBytes });
    at += BLOCK_BYTES + padded(sizeBytes);
  }
  const [manifest, envelope, attestations, index] = found;
  if (!manifest || !envelope || !attestations || !index) throw malformed('has too few members');
  return {
    manifest,
    envelope,
    attestations,
    index,
    dataHeader: { offset: at, sizeBytes: BLOCK_BYTES },
    dataOffset: at + BLOCK_BYTES,
  };
}

/** Throws unless `header` (one block) announces chunks.data of exactly `dataBytes`. */
export function checkDataHeader(header: Uint8Array, dataBytes: number): void {
  const sizeBytes = parseHeader(header, 'chunks.data');
  if (sizeBytes !== dataBytes) {
    throw new Problem(
      'E_SIZE',
      `chunks.data has ${sizeBytes} bytes, the manifest says ${dataBytes}`,
    );
  }
}

/** The length that a whole bundle file has. */
export function bundleBytes(located: Located, dataBytes: number): number {
  return located.dataOffset + padded(dataBytes) + TRAILER_BYTES;
}

/** `sizeBytes` rounded up to whole blocks. */
export function padded(sizeBytes: number): number {
  return Math.ceil(sizeBytes / BLOCK_BYTES) * BLOCK_BYTES;
}

/** The zero bytes that stand behind content of `sizeBytes`. */
export function padding(sizeBytes: number): Uint8Array {
  return new Uint8Array(padded(sizeBytes) - sizeBytes);
}

/** The header block of a member. `created` is the manifest's, in seconds. */
export function memberHeader(name: MemberName, sizeBytes: number, created: number): Uint8Array {
  if (sizeBytes > memberLimits[name]) {
    throw new Problem(
      'E_SIZE',
      `${name} has ${sizeBytes} bytes, the limit is ${memberLimits[name]}`,
    );
  }
  const block = Buffer.alloc(BLOCK_BYTES);
  block.write(name, 0, 'latin1');
  block.write('0000644\0', 100, 'latin1');
  block.write('0000000\0', 108, 'latin1');
  block.write('0000000\0', 116, 'latin1');
  writeNumber(block, 124, sizeBytes);
  writeNumber(block, 136, created);
  block.write('0', 156, 'latin1');
  block.write('ustar\x0000', 257, 'latin1');
  block.write('0000000\0', 329, 'latin1');
  block.write('0000000\0', 337, 'latin1');
  block.write(`${checksum(block).toString(8).padStart(6, '0')}\0 `, 148, 'latin1');
  return block;
}

const OCTAL_DIGITS = 11;

/** Eleven octal digits, or, from 8 GiB on, base 256 with the top bit set, as GNU tar, bsdtar and Python read it. */
function writeNumber(block: Buffer, at: number, value: number): void {
  const octal = value.toString(8);
  if (octal.length <= OCTAL_DIGITS) {
    block.write(`${octal.padStart(OCTAL_DIGITS, '0')}\0`, at, 'latin1');
    return;
  }
  block[at] = 0x80;
  block.writeBigUInt64BE(BigInt(value), at + 4);
}

function readNumber(block: Buffer, at: number): number {
  if (block[at] === 0x80) {
    const value = block.readBigUInt64BE(at + 4);
    const high = block.subarray(at + 1, at + 4);
    if (high.some((byte) => byte !== 0) || value > BigInt(Number.MAX_SAFE_INTEGER)) {
      throw new Problem('E_SIZE', 'bundle has a member of 2^53 bytes or more');
    }
    return Number(value);
  }
  const text = block.toString('latin1', at, at + OCTAL_DIGITS + 1);
  if (!/^[0-7]{11}\0$/.test(text)) throw malformed('has a number that is not 11 octal digits');
  return Number.parseInt(text, 8);
}

/** Sum of all bytes of a header, its own field counted as spaces. */
function checksum(block: Uint8Array): number {
  let sum = 0;
  for (let i = 0; i < BLOCK_BYTES; i += 1) sum += i >= 148 && i < 156 ? 0x20 : (block[i] ?? 0);
  return sum;
}

/** Size of the member whose header this is; strict: the block must be what `memberHeader` writes. */
function parseHeader(bytes: Uint8Array, name: MemberName): number {
  if (bytes.byteLength !== BLOCK_BYTES) throw malformed(`has an incomplete header for ${name}`);
  const block = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const end = block.indexOf(0);
  const found = block.toString('latin1', 0, Math.min(end < 0 ? 100 : end, 100));
  if (found !== name) throw malformed(`has ${JSON.stringify(found)} where ${name} is expected`);
  const sizeBytes = readNumber(block, 124);
  if (sizeBytes > memberLimits[name]) {
    throw new Problem(
      'E_SIZE',
      `${name} has ${sizeBytes} bytes, the limit is ${memberLimits[name]}`,
    );
  }
  if (Buffer.compare(memberHeader(name, sizeBytes, readNumber(block, 136)), block) !== 0) {
    throw malformed(`has a header for ${name} that is not canonical`);
  }
  return sizeBytes;
}

function malformed(what: string): Problem {
  return new Problem('E_SCHEMA', `bundle ${what}`);
}
