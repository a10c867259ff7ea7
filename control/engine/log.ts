/** The audit log as control keeps it: which log the policy names, proofs for pins, what hosts saw of it. docs/specs/audit-log.md. */
import { hexOf, type Signer } from '#/bundle/keys.ts';
import { signCheckpoint, type TreeHead } from '#/bundle/log/checkpoint.ts';
import { entryBytes } from '#/bundle/log/entry.ts';
import { inclusionProof, rootAt } from '#/bundle/log/merkle.ts';
import { formatProof } from '#/bundle/log/proof.ts';
import { overTiles, type Tile, tilePath } from '#/bundle/log/tiles.ts';
import { desiredPath, hostDesiredPath, type LogDocument } from '#/bundle/trust/documents.ts';
import { canSignRole } from '#/control/trust/delegations.ts';
import { nextOrigin, readLog, setLog } from '#/control/trust/targets.ts';
import type { DesiredDocument, ReportDocument } from '#/protocol/documents.ts';
import { must, Problem } from '#/protocol/errors.ts';
import type { AuditEntry } from '#/protocol/operator-plane.ts';
import { type Desk, repositoryOf } from './desk.ts';
import type { Draft } from './draft.ts';

/** Tiles of the log from the store, or from a transaction under way. */
export interface LogTiles {
  logSize(): Promise<number>;
  logTile(tile: Tile): Promise<Uint8Array | null>;
}

const tileOf =
  (store: LogTiles) =>
  async (tile: Tile): Promise<Uint8Array> => {
    const bytes = await store.logTile(tile);
    must(bytes !== null, `L9: the store has ${tilePath(tile)}`);
    return bytes;
  };

/** The tree of the first `size` entries. */
export async function headAt(store: LogTiles, size: number): Promise<TreeHead> {
  const root = await overTiles(size, (read) => rootAt(size, read), tileOf(store));
  return { size, root };
}

/** Which entry is that of the pin under this path: for the proof of a pin that carries none, because it was signed elsewhere. */
export async function keepPinEntry(
  draft: Draft,
  document: DesiredDocument,
  entry: AuditEntry,
): Promise<void> {
  const { group, host } = document;
  const path = host === undefined ? desiredPath(group) : hostDesiredPath(group, host);
  await draft.setMeta(`pin-entry/${path}`, String(entry.id));
}

/**
 * The pin with the proof that the log has it. `entry` is the one that was just appended for it. Unchanged when the policy
 * names no log. @throws Problem E_LOG when control does not hold the key of the log that the policy names
 */
export async function stapled(
  desk: Desk,
  draft: Draft,
  document: DesiredDocument,
  entry: AuditEntry,
): Promise<DesiredDocument> {
  const policy = readLog(repositoryOf(desk, draft));
  if (policy === null) return document;
  const signer = desk.logKey;
  if (signer === null || !policy.keys.includes(hexOf(signer.key.bytes))) {
    throw new Problem('E_LOG', 'control does not hold a key of the log that the policy names');
  }
  return { ...document, logProof: await proofOf(draft.writer, entry, policy.origin, signer) };
}

/** The proof of an entry in the tree as it is now. */
async function proofOf(
  store: LogTiles,
  entry: AuditEntry,
  origin: string,
  signer: Signer,
): Promise<string> {
  const size = await store.logSize();
  const index = entry.id - 1;
  const { root, hashes } = await overTiles(
    size,
    (read) => ({ root: rootAt(size, read), hashes: inclusionProof(index, size, read) }),
    tileOf(store),
  );
  const checkpoint = signCheckpoint(origin, { size, root }, signer);
  return formatProof({ entry: entryBytes(entry), index, hashes, checkpoint });
}

/**
 * Compares what a host saw of the log with the log itself, and writes down once when they differ: the sign of a second log, or
 * of a store that was put back to an older state. A tree that only differs in its origin is of a log that was closed.
 */
export async function compareSeenLog(
  desk: Desk,
  draft: Draft,
  report: ReportDocument,
  digest: string,
): Promise<void> {
  const policy = readLog(repositoryOf(desk, draft));
  const seen = report.log;
  if (policy === null || seen === undefined || seen.origin !== policy.origin) return;
  const size = await draft.writer.logSize();
  const isAhead = seen.size > size;
  if (!isAhead && (await rootTextAt(draft, seen.size)) === seen.root) return;
  const key = `log-differs/${report.host}`;
  const told = `${seen.size}/${seen.root}`;
  if (draft.meta(key) === told) return;
  await draft.setMeta(key, told);
  await draft.audit('control', 'log.differs', `host/${report.host}`, {
    seenSize: seen.size,
    seenRoot: seen.root,
    size,
    report: digest,
    words: isAhead
      ? 'the host saw more entries than this log has: the store is older than the log was'
      : 'the host saw another log of this size: two logs were shown, or entries were changed',
  });
}

/** Sizes of the log whose roots are kept in memory: hosts of one rollout all report the same one. */
const LOG_ROOTS_MAX = 256;

async function rootTextAt({ fleet, writer }: Draft, size: number): Promise<string> {
  const known = fleet.logRoots.get(size);
  if (known !== undefined) return known;
  const root = hexOf((await headAt(writer, size)).root);
  // An entry of this very change may yet be rolled back: its tree is not remembered.
  if (size > fleet.lastAuditId) return root;
  if (fleet.logRoots.size >= LOG_ROOTS_MAX) fleet.logRoots.clear();
  fleet.logRoots.set(size, root);
  return root;
}

/**
 * A store that was put back to an older state cannot go on with the log that hosts saw: where control holds the policy keys,
 * the log begins anew under the next origin. Elsewhere the holders of the policy keys sign that.
 */
export async function renewLog(desk: Desk, draft: Draft): Promise<void> {
  const repository = repositoryOf(desk, draft);
  const policy = readLog(repository);
  if (policy === null || !canSignRole(repository, 'policy')) return;
  const next: LogDocument = { ...policy, origin: nextOrigin(policy.origin) };
  await draft.publish(setLog(repository, next));
  await draft.audit('control', 'log.renew', 'fleet', { from: policy.origin, to: next.origin });
}

/** Serves what the log key signs: each text anew at most every few seconds. */
export interface SignedLog {
  /** The checkpoint of the log as it is; null without a log. */
  checkpoint(): Promise<string | null>;
  /** The proof of the pin under a target path; null without a log or without such a pin. */
  proof(path: string): Promise<string | null>;
}

const SIGN_INTERVAL_MS = 3000;
/** Texts that are kept; each group has one pin. */
const TEXTS_MAX = 1024;

export function createSignedLog(desk: Desk): SignedLog {
  const { engine, logKey } = desk;
  const made = new Map<string, { readonly text: string; readonly atMs: number }>();
  const policyOf = (): LogDocument | null => {
    const read = (name: string): Uint8Array | null => engine.fleet.trust.get(name) ?? null;
    return readLog({ store: { read }, keys: [], nowMs: engine.nowMs() });
  };
  const cached = async (
    name: string,
    make: (origin: string, signer: Signer) => Promise<string>,
  ): Promise<string | null> => {
    const policy = policyOf();
    if (policy === null || logKey === null) return null;
    const key = `${policy.origin} ${name}`;
    const nowMs = engine.nowMs();
    const last = made.get(key);
    if (last !== undefined && Math.abs(nowMs - last.atMs) < SIGN_INTERVAL_MS) return last.text;
    const text = await make(policy.origin, logKey);
    if (made.size >= TEXTS_MAX) made.clear();
    made.set(key, { text, atMs: nowMs });
    return text;
  };
  return {
    checkpoint: () =>
      cached('checkpoint', async (origin, signer) => {
        const head = await headAt(engine.store, await engine.store.logSize());
        return signCheckpoint(origin, head, signer);
      }),
    async proof(path) {
      const id = Number(engine.fleet.meta.get(`pin-entry/${path}`) ?? 0);
      const [entry] = id === 0 ? [] : await engine.store.auditAfter(id - 1, 1, null);
      if (entry?.id !== id) return null;
      return cached(`${path} ${id}`, (origin, signer) =>
        proofOf(engine.store, entry, origin, signer),
      );
    },
  };
}
