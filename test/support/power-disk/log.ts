/** What a logging disk was asked for, in order: writes with their bytes, and flushes. One record: kind, offset, length, bytes. */

export type DiskEvent =
  | { readonly do: 'write'; readonly offset: number; readonly bytes: Uint8Array }
  | { readonly do: 'flush' };

export interface LoggedEvent {
  readonly event: DiskEvent;
  /** Bytes of the log once this is in it. */
  readonly logBytes: number;
}

const HEADER_BYTES = 16;
const WRITE = 1;
const FLUSH = 2;

/** The head of a record; the bytes of a write follow it. */
export function recordHead(kind: 'write' | 'flush', offset: number, sizeBytes: number): Uint8Array {
  const head = Buffer.alloc(HEADER_BYTES);
  head.writeUInt32LE(kind === 'write' ? WRITE : FLUSH, 0);
  head.writeUInt32LE(sizeBytes, 4);
  head.writeBigUInt64LE(BigInt(offset), 8);
  return head;
}

/** All whole records of a log. */
export function parseLog(log: Buffer): readonly LoggedEvent[] {
  const events: LoggedEvent[] = [];
  let at = 0;
  while (at + HEADER_BYTES <= log.length) {
    const kind = log.readUInt32LE(at);
    const sizeBytes = log.readUInt32LE(at + 4);
    const offset = Number(log.readBigUInt64LE(at + 8));
    at += HEADER_BYTES;
    if (kind === FLUSH) {
      events.push({ event: { do: 'flush' }, logBytes: at });
      continue;
    }
    if (kind !== WRITE || at + sizeBytes > log.length) throw new Error(`a damaged log at ${at}`);
    const bytes = log.subarray(at, at + sizeBytes);
    at += sizeBytes;
    events.push({ event: { do: 'write', offset, bytes }, logBytes: at });
  }
  return events;
}
