/**
 * Whether a pin is in the audit log, and whether that log is still the one that this host saw before. Which log, and whether
 * one is asked for at all, is what the policy role signed. docs/specs/audit-log.md.
 */
import type { DesiredDocument } from '#/protocol/documents.ts';
import { Problem } from '#/protocol/errors.ts';
import { bytesOfHex, hexOf, publicKeyOf } from '../keys.ts';
import { type LogIdentity, type TreeHead } from '../log/checkpoint.ts';
import { readEntry, subjectDigest } from '../log/entry.ts';
import { consistencyProof, isConsistent } from '../log/merkle.ts';
import { parseProof, PROOF_MAX_CHARACTERS, verifyProof } from '../log/proof.ts';
import { overTiles, TILE_MAX_BYTES, tilePath } from '../log/tiles.ts';
import type { Session, TrustFetch } from './client.ts';
import {
  desiredPath,
  hostDesiredPath,
  LOG_PATH,
  type LogDocument,
  logDocument,
  POLICY_ROLE,
  readDocument,
} from './documents.ts';
import { documentOf, type Documents, findOptional } from './find.ts';
import type { TrustedSet } from './trusted-set.ts';

/** What a host remembers of the log. */
export interface LogMemory {
  readonly origin: string;
  readonly size: number;
  /** Hex. */
  readonly root: string;
}

/** The log that the policy asks for, or null when it asks for none. */
export async function readLogPolicy(
  set: TrustedSet,
  session: Session,
  documents: Documents,
): Promise<{ readonly set: TrustedSet; readonly log: LogIdentity | null }> {
  const found = await findOptional(set, LOG_PATH, POLICY_ROLE, session);
  if (found === null) return { set, log: null };
  const bytes = await documentOf(found, session, documents);
  return { set: found.set, log: identityOf(readDocument(LOG_PATH, logDocument, bytes)) };
}

/** Origin and keys as they are used. @throws Problem E_KEYID */
function identityOf(document: LogDocument): LogIdentity {
  return {
    origin: document.origin,
    keys: document.keys.map((hex) => publicKeyOf(bytesOfHex(hex, 32) ?? new Uint8Array())),
  };
}

/**
 * The newest tree that is known once the pin was found in the log. The tree of its proof and the one that was seen before must
 * be one and the same log, whichever is the older.
 * @throws Problem E_LOG; E_HTTP and others of the fetcher when tiles cannot be had
 */
export async function requireLogged(
  desired: DesiredDocument,
  log: LogIdentity,
  seen: LogMemory | null,
  fetch: TrustFetch,
): Promise<LogMemory> {
  const proof = parseProof(desired.logProof ?? (await fetchedProof(desired, fetch)));
  const head = verifyProof(proof, log);
  const entry = readEntry(proof.entry);
  const digest = subjectDigest(desired);
  if (entry.type !== 'pin' || entry.details['digest'] !== digest) {
    throw new Problem('E_LOG', `the proof of the pin of ${desired.group} is of another entry`, {
      index: proof.index,
      type: entry.type,
      digest,
    });
  }
  const before = seen?.origin === log.origin ? headOf(seen) : null;
  if (before !== null) await requireSameLog(before, head, fetch);
  const newest = before !== null && before.size > head.size ? before : head;
  return { origin: log.origin, size: newest.size, root: hexOf(newest.root) };
}

/** The proof of a pin that carries none: it was signed before the log had it. It proves itself, wherever it comes from. */
async function fetchedProof(desired: DesiredDocument, fetch: TrustFetch): Promise<string> {
  const { group, host } = desired;
  const path = host === undefined ? desiredPath(group) : hostDesiredPath(group, host);
  const bytes = (await fetch.log?.(`proof/${path}`, PROOF_MAX_CHARACTERS * 2)) ?? null;
  if (bytes === null) throw new Problem('E_LOG', `the audit log has no proof of the pin ${path}`);
  return Buffer.from(bytes).toString('utf8');
}

function headOf(memory: LogMemory): TreeHead {
  return { size: memory.size, root: bytesOfHex(memory.root, 32) ?? new Uint8Array() };
}

/** @throws Problem E_LOG when neither tree is the beginning of the other */
async function requireSameLog(a: TreeHead, b: TreeHead, fetch: TrustFetch): Promise<void> {
  const [older, newer] = a.size <= b.size ? [a, b] : [b, a];
  const proof =
    older.size === newer.size
      ? []
      : await overTiles(
          newer.size,
          (read) => consistencyProof(older.size, newer.size, read),
          async (tile) => {
            const path = tilePath(tile);
            const bytes = (await fetch.log?.(path, TILE_MAX_BYTES)) ?? null;
            // The tree that was seen before was there once: a log that lacks it was cut off.
            const code = newer === a ? 'E_LOG' : 'E_HTTP';
            if (bytes === null) throw new Problem(code, `the log has no ${path}`, { path });
            return bytes;
          },
        );
  if (!isConsistent(older, newer, proof)) {
    throw new Problem(
      'E_LOG',
      `the audit log of ${b.size} entries is not the one of ${a.size} that was seen before`,
      { seenSize: a.size, size: b.size },
    );
  }
}
