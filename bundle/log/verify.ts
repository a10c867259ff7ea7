/**
 * The whole log, checked from its entries up: every leaf, every tile, the root, the checkpoint, and what hosts saw and said. No
 * server is needed. docs/specs/audit-log.md.
 */
import * as v from 'valibot';
import {
  type Envelope,
  envelope as envelopeSchema,
  REPORT_PAYLOAD_TYPE,
  type ReportDocument,
  reportDocument,
} from '#/protocol/documents.ts';
import { isProblem, must, Problem } from '#/protocol/errors.ts';
import { openEnvelope } from '../dsse.ts';
import { verifyFast } from '../ed25519.ts';
import { bytesOfHex, hexOf, publicKeyOf, sha256 } from '../keys.ts';
import { parseStrictJson } from '../strict-json.ts';
import { type LogIdentity, openCheckpoint, type TreeHead } from './checkpoint.ts';
import { type LogEntry, readEntry } from './entry.ts';
import { HASH_BYTES, isSame, leafHash, type ReadNode, rootAt } from './merkle.ts';
import { nodesFromTiles, type Tile, TILE_WIDTH, tilePath, tileRoot, tilesOf } from './tiles.ts';

const REPORT_MAX_BYTES = 1024 * 1024;

/** A log as it lies in a directory. */
export interface LogCopy {
  readonly checkpoint: string;
  /** Hashes of a tile, and the entries beside a tile of level 0. @throws Problem E_LOG when they are not there */
  hashes(tile: Tile): Promise<Uint8Array>;
  entries(tile: Tile): Promise<readonly Uint8Array[]>;
}

export interface VerifiedLog {
  readonly head: TreeHead;
  readonly read: ReadNode;
  /** Sign keys of hosts by host id, from the entries that enrolled them. Hex. */
  readonly hostKeys: ReadonlyMap<string, string>;
  /** Entries that carry a host's signed report. */
  readonly reported: readonly LogEntry[];
}

/**
 * Recomputes the tree from its entries. @throws Problem E_LOG; `details.index` is the first entry that is not the one whose hash
 * the log has
 */
export async function verifyLog(copy: LogCopy, log: LogIdentity): Promise<VerifiedLog> {
  const head = openCheckpoint(copy.checkpoint, log);
  const hashes = new Map<string, Uint8Array>();
  const hostKeys = new Map<string, string>();
  const reported: LogEntry[] = [];
  for (const tile of tilesOf(head.size)) {
    const stored = await copy.hashes(tile);
    const path = tilePath(tile);
    if (stored.length !== tile.width * HASH_BYTES) throw broken(`${path} is cut off`);
    hashes.set(path, stored);
    if (tile.level === 0) {
      for (const entry of checkedEntries(await copy.entries(tile), tile, stored)) {
        if (entry.type === 'enrol') keepHostKey(entry, hostKeys);
        if (typeof entry.details['report'] === 'string') reported.push(entry);
      }
    } else {
      checkUpperTile(tile, stored, hashes);
    }
  }
  const read = nodesFromTiles(head.size, (tile) => hashes.get(tilePath(tile)) ?? missing(tile));
  if (!isSame(rootAt(head.size, read), head.root)) {
    throw broken(`the entries do not have the root of the checkpoint of ${head.size}`);
  }
  return { head, read, hostKeys, reported };
}

function* checkedEntries(
  entries: readonly Uint8Array[],
  tile: Tile,
  stored: Uint8Array,
): Generator<LogEntry> {
  const first = tile.index * TILE_WIDTH;
  if (entries.length !== tile.width) {
    throw broken(`entry ${first + entries.length} is missing`, first + entries.length);
  }
  for (const [at, bytes] of entries.entries()) {
    const index = first + at;
    const hash = stored.subarray(at * HASH_BYTES, (at + 1) * HASH_BYTES);
    if (!isSame(leafHash(bytes), hash)) {
      throw broken(`entry ${index} is not the one that was logged`, index);
    }
    const entry = readEntry(bytes);
    if (entry.id !== index + 1) throw broken(`entry ${index} says that it is ${entry.id}`, index);
    yield entry;
  }
}

/** A tile above the leaves holds the roots of the whole tiles below it. */
function checkUpperTile(
  tile: Tile,
  stored: Uint8Array,
  hashes: ReadonlyMap<string, Uint8Array>,
): void {
  for (let at = 0; at < tile.width; at += 1) {
    const below = {
      level: tile.level - 1,
      index: tile.index * TILE_WIDTH + at,
      width: TILE_WIDTH,
    };
    const bytes = hashes.get(tilePath(below));
    must(bytes !== undefined, `L10: ${tilePath(below)} comes before ${tilePath(tile)}`);
    const root = tileRoot(bytes);
    if (!isSame(root, stored.subarray(at * HASH_BYTES, (at + 1) * HASH_BYTES))) {
      throw broken(`${tilePath(tile)} does not follow from the tiles below it`);
    }
  }
}

function keepHostKey(entry: LogEntry, hostKeys: Map<string, string>): void {
  const key = entry.details['signKey'];
  if (typeof key === 'string' && entry.subject.startsWith('host/')) {
    hostKeys.set(entry.subject.slice('host/'.length), key);
  }
}

/** @throws Problem E_LOG unless the older tree is the beginning of this log */
export function requireBeginning(log: VerifiedLog, older: TreeHead, whose: string): void {
  if (older.size > log.head.size) {
    throw broken(`${whose} saw ${older.size} entries, this log has ${log.head.size}`);
  }
  if (!isSame(rootAt(older.size, log.read), older.root)) {
    throw broken(`${whose} saw another log of ${older.size} entries: two logs were shown`);
  }
}

/** The report in an envelope, signed by the host that it is of. @throws Problem E_LOG when the log enrolled no such key */
function openReport(log: VerifiedLog, text: string): ReportDocument {
  const envelope = shaped(envelopeSchema, text, 'report envelope') as Envelope;
  const claimed = hostOf(envelope);
  const key = bytesOfHex(log.hostKeys.get(claimed) ?? '', 32);
  if (key === null) throw broken(`the log never enrolled host ${claimed}`);
  try {
    const payload = openEnvelope(envelope, {
      keys: [publicKeyOf(key)],
      threshold: 1,
      payloadType: REPORT_PAYLOAD_TYPE,
      verify: verifyFast,
    });
    return shaped(reportDocument, Buffer.from(payload).toString('utf8'), 'report');
  } catch (cause) {
    if (!isProblem(cause)) throw cause;
    throw new Problem('E_LOG', `a report of ${claimed}: ${cause.message}`, {}, { cause });
  }
}

/** Whose report it says it is; nothing is believed before the signature of that host. */
function hostOf(envelope: Envelope): string {
  const payload = Buffer.from(envelope.payload, 'base64').toString('utf8');
  return shaped(v.looseObject({ host: v.string() }), payload, 'report').host;
}

function shaped<T>(schema: v.GenericSchema<unknown, T>, text: string, what: string): T {
  let value: unknown;
  try {
    value = parseStrictJson(Buffer.from(text, 'utf8'), { maxBytes: 2 * REPORT_MAX_BYTES });
  } catch (cause) {
    throw new Problem('E_LOG', `${what} is not strict JSON`, {}, { cause });
  }
  const parsed = v.safeParse(schema, value);
  if (!parsed.success) throw broken(`${what}: ${parsed.issues[0].message}`);
  return parsed.output;
}

/** What a host's report saw of the log must be the beginning of it. Reports of other origins are of logs that were closed. */
export function checkWitness(log: VerifiedLog, identity: LogIdentity, text: string): string | null {
  const report = openReport(log, text);
  if (report.log === undefined || report.log.origin !== identity.origin) return null;
  const root = bytesOfHex(report.log.root, HASH_BYTES) ?? new Uint8Array();
  requireBeginning(log, { size: report.log.size, root }, `host ${report.host}`);
  return report.host;
}

/** What control wrote down of an attempt must be what the host signed (X09). @throws Problem E_LOG with the index */
export function checkOutcome(log: VerifiedLog, entry: LogEntry): void {
  const index = entry.id - 1;
  const text = String(entry.details['report']);
  const report = openReport(log, text);
  const payload = Buffer.from((JSON.parse(text) as Envelope).payload, 'base64');
  const isOfHost = entry.subject === `host/${report.host}`;
  if (!isOfHost || sha256(payload) !== entry.details['digest']) {
    throw broken(`entry ${index} carries a report of another host or digest`, index);
  }
  const artifactId = entry.details['artifactId'];
  const phases = report.events
    .filter((event) => event.artifactId === artifactId)
    .map((event) => event.phase);
  const isConfirmed = phases.includes('confirmed') || report.running === artifactId;
  const saysConfirmed = entry.type === 'attempt.confirmed';
  const contradicts = saysConfirmed ? !isConfirmed : phases.includes('confirmed');
  if (contradicts) {
    throw broken(
      `entry ${index} says ${entry.type}, the host signed ${phases.join(', ') || 'no such event'}`,
      index,
    );
  }
}

/** Hex of a root, for people. */
export function rootText(head: TreeHead): string {
  return hexOf(head.root);
}

function missing(tile: Tile): never {
  throw broken(`${tilePath(tile)} is missing`);
}

function broken(message: string, index?: number): Problem {
  return new Problem('E_LOG', message, index === undefined ? {} : { index });
}
