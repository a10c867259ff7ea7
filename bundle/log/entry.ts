/** Entries of the audit log as bytes: the leaves of the tree, and the bundles in which they are exported. docs/specs/audit-log.md. */
import * as v from 'valibot';
import { type JsonValue, Problem } from '#/protocol/errors.ts';
import { canonicalDocument } from '../canonical.ts';
import { sha256 } from '../keys.ts';
import { parseStrictJson } from '../strict-json.ts';

/** Entries stand behind a length of two bytes. */
export const ENTRY_MAX_BYTES = 65_535;
/** 256 of the largest entries. */
export const ENTRY_BUNDLE_MAX_BYTES = 256 * (ENTRY_MAX_BYTES + 2);

const logEntry = v.strictObject({
  schema: v.literal('switchback.log-entry/1'),
  /** 1 for the first entry; its index in the tree is one less. */
  id: v.pipe(v.number(), v.safeInteger(), v.minValue(1)),
  atMs: v.pipe(v.number(), v.safeInteger()),
  actor: v.string(),
  type: v.string(),
  subject: v.string(),
  details: v.record(v.string(), v.unknown()),
});
export type LogEntry = v.InferOutput<typeof logEntry>;

/** The leaf of an entry: canonical JSON. @throws Problem E_TOOBIG */
export function entryBytes(entry: Omit<LogEntry, 'schema'>): Uint8Array {
  const { id, atMs, actor, type, subject, details } = entry;
  const bytes = canonicalDocument({
    schema: 'switchback.log-entry/1',
    id,
    atMs,
    actor: actor.toWellFormed(),
    type,
    subject: subject.toWellFormed(),
    details: plain(details),
  });
  if (bytes.length > ENTRY_MAX_BYTES) {
    throw new Problem('E_TOOBIG', `${type} of ${subject}: an entry of ${bytes.length} bytes`);
  }
  return bytes;
}

/** Numbers with a fraction have more than one spelling, so they stand as text. */
function plain(value: unknown): unknown {
  if (typeof value === 'number') {
    return Number.isSafeInteger(value) && !Object.is(value, -0) ? value : String(value);
  }
  if (typeof value === 'string') return value.toWellFormed();
  if (Array.isArray(value)) return value.map(plain);
  if (typeof value !== 'object' || value === null) return value;
  return Object.fromEntries(
    Object.entries(value).map(([key, each]) => [key.toWellFormed(), plain(each)]),
  );
}

/** The entry in a leaf. @throws Problem E_LOG when it is none */
export function readEntry(bytes: Uint8Array): LogEntry {
  let value: JsonValue;
  try {
    value = parseStrictJson(bytes, { maxBytes: ENTRY_MAX_BYTES });
  } catch (cause) {
    throw new Problem('E_LOG', 'a log entry is not strict JSON', {}, { cause });
  }
  const parsed = v.safeParse(logEntry, value);
  if (!parsed.success) {
    const issue = parsed.issues[0];
    throw new Problem('E_LOG', `log entry: ${v.getDotPath(issue) ?? 'document'}: ${issue.message}`);
  }
  return parsed.output;
}

/** What the log says of a signed document: the sha256 of its canonical form without the proof that will be put into it. */
export function subjectDigest(document: object): string {
  const { logProof: _, ...rest } = document as { logProof?: string };
  return sha256(canonicalDocument(rest));
}

/** Entries one after the other, each behind its length in two bytes, big-endian (C2SP tlog-tiles). */
export function packEntries(entries: readonly Uint8Array[]): Uint8Array {
  const parts = entries.flatMap((entry) => {
    const length = new Uint8Array(2);
    new DataView(length.buffer).setUint16(0, entry.length);
    return [length, entry];
  });
  return Buffer.concat(parts);
}

/** @throws Problem E_LOG when the bytes end within an entry */
export function unpackEntries(bytes: Uint8Array): Uint8Array[] {
  const entries: Uint8Array[] = [];
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  for (let at = 0; at < bytes.length; ) {
    const end = at + 2 <= bytes.length ? at + 2 + view.getUint16(at) : Infinity;
    if (end > bytes.length) throw new Problem('E_LOG', 'a bundle of entries is cut off');
    entries.push(bytes.subarray(at + 2, end));
    at = end;
  }
  return entries;
}
