/**
 * Bounded little-endian reading and writing for the binary formats of a bundle (docs/specs/bundle-format.md, sections 3
 * and 4). The reader never allocates by a declared count before it knows that so many bytes are there.
 */
import { Problem } from '#/protocol/errors.ts';

export interface ByteReader {
  readonly u8: () => number;
  readonly u16: () => number;
  readonly u32: () => number;
  readonly i32: () => number;
  /** A 64-bit unsigned integer that is a safe integer; others are E_SIZE. */
  readonly u64: () => number;
  /** A view of the next `count` bytes. */
  readonly take: (count: number) => Uint8Array;
  /** Throws E_SCHEMA unless `count` items of `width` bytes are still there. */
  readonly expect: (count: number, width: number, what: string) => void;
  readonly remaining: () => number;
}

/** A reader over `bytes`; `what` names the document in messages. Reading past the end is E_SCHEMA. */
export function byteReader(bytes: Uint8Array, what: string): ByteReader {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  let at = 0;
  const advance = (width: number): number => {
    if (width > bytes.byteLength - at) {
      throw new Problem(
        'E_SCHEMA',
        `${what} ends at byte ${bytes.byteLength}, in the middle of a field`,
      );
    }
    const from = at;
    at += width;
    return from;
  };
  return {
    u8: () => view.getUint8(advance(1)),
    u16: () => view.getUint16(advance(2), true),
    u32: () => view.getUint32(advance(4), true),
    i32: () => view.getInt32(advance(4), true),
    u64: () => {
      const from = advance(8);
      const high = view.getUint32(from + 4, true);
      // 2^21 in the high word is 2^53: the first integer that is not safe.
      if (high >= 0x20_0000)
        throw new Problem('E_SIZE', `${what} has a size of 2^53 or more at byte ${from}`);
      return high * 0x1_0000_0000 + view.getUint32(from, true);
    },
    take: (count) => {
      const from = advance(count);
      return bytes.subarray(from, from + count);
    },
    expect: (count, width, field) => {
      if (count * width > bytes.byteLength - at) {
        throw new Problem(
          'E_SCHEMA',
          `${what} declares ${count} ${field} but has ${bytes.byteLength - at} bytes left`,
        );
      }
    },
    remaining: () => bytes.byteLength - at,
  };
}

export interface ByteWriter {
  readonly u8: (value: number) => void;
  readonly u16: (value: number) => void;
  readonly u32: (value: number) => void;
  readonly i32: (value: number) => void;
  readonly u64: (value: number) => void;
  readonly put: (bytes: Uint8Array) => void;
  /** What was written so far; the writer is not used after. */
  readonly done: () => Uint8Array;
}

/** A growing little-endian writer. */
export function byteWriter(initialBytes = 1024): ByteWriter {
  let bytes = new Uint8Array(initialBytes);
  let view = new DataView(bytes.buffer);
  let at = 0;
  const grow = (width: number): number => {
    if (at + width > bytes.byteLength) {
      const larger = new Uint8Array(Math.max(bytes.byteLength * 2, at + width));
      larger.set(bytes);
      bytes = larger;
      view = new DataView(bytes.buffer);
    }
    const from = at;
    at += width;
    return from;
  };
  // `grow` replaces the buffer, so it runs before `view` or `bytes` is looked at.
  return {
    u8: (value) => {
      const from = grow(1);
      view.setUint8(from, value);
    },
    u16: (value) => {
      const from = grow(2);
      view.setUint16(from, value, true);
    },
    u32: (value) => {
      const from = grow(4);
      view.setUint32(from, value, true);
    },
    i32: (value) => {
      const from = grow(4);
      view.setInt32(from, value, true);
    },
    u64: (value) => {
      const from = grow(8);
      view.setUint32(from, value % 0x1_0000_0000, true);
      view.setUint32(from + 4, Math.floor(value / 0x1_0000_0000), true);
    },
    put: (more) => {
      const from = grow(more.byteLength);
      bytes.set(more, from);
    },
    done: () => bytes.subarray(0, at),
  };
}
