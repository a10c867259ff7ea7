/**
 * A proof that travels with what it proves (C2SP tlog-proof): the entry itself as extra data, its index, the hashes up to the
 * root, and the checkpoint that has this root. docs/specs/audit-log.md.
 */
import { Problem } from '#/protocol/errors.ts';
import {
  CHECKPOINT_MAX_BYTES,
  type LogIdentity,
  openCheckpoint,
  type TreeHead,
} from './checkpoint.ts';
import { HASH_BYTES, isIncluded, leafHash, LEVELS_MAX } from './merkle.ts';
import { ENTRY_MAX_BYTES } from './entry.ts';

const HEADER = 'c2sp.org/tlog-proof@v1';
/** The entry in base64, the hashes, the checkpoint. */
export const PROOF_MAX_CHARACTERS =
  Math.ceil(ENTRY_MAX_BYTES / 3) * 4 + LEVELS_MAX * 45 + CHECKPOINT_MAX_BYTES + 128;

export interface LogProof {
  /** The bytes of the entry. */
  readonly entry: Uint8Array;
  readonly index: number;
  readonly hashes: readonly Uint8Array[];
  /** The signed checkpoint, as text. */
  readonly checkpoint: string;
}

export function formatProof(proof: LogProof): string {
  const base64 = (bytes: Uint8Array): string => Buffer.from(bytes).toString('base64');
  return [
    HEADER,
    `extra ${base64(proof.entry)}`,
    `index ${proof.index}`,
    ...proof.hashes.map(base64),
    '',
    proof.checkpoint,
  ].join('\n');
}

/** @throws Problem E_LOG for any other spelling */
export function parseProof(text: string): LogProof {
  if (text.length > PROOF_MAX_CHARACTERS) throw refused(`of ${text.length} characters`);
  const at = text.indexOf('\n\n');
  if (at < 0) throw refused('has no checkpoint');
  const [header, extra = '', index = '', ...hashes] = text.slice(0, at).split('\n');
  if (header !== HEADER) throw refused('is of another format');
  const number = /^index (0|[1-9]\d{0,15})$/.exec(index)?.[1];
  const entry = /^extra (\S+)$/.exec(extra)?.[1];
  if (number === undefined || entry === undefined) throw refused('lacks its entry or its index');
  if (hashes.length > LEVELS_MAX) throw refused(`has ${hashes.length} hashes`);
  return {
    entry: bytesOf(entry),
    index: Number(number),
    hashes: hashes.map((line) => {
      const hash = bytesOf(line);
      if (hash.length !== HASH_BYTES) throw refused('has a hash of another length');
      return hash;
    }),
    checkpoint: text.slice(at + 2),
  };
}

/** Where the entry of a proof stands in the log. @throws Problem E_LOG unless the log has it there */
export function verifyProof(proof: LogProof, log: LogIdentity): TreeHead {
  const head = openCheckpoint(proof.checkpoint, log);
  if (!isIncluded(leafHash(proof.entry), proof.index, head.size, head.root, proof.hashes)) {
    throw refused(`does not lead from entry ${proof.index} to the tree of ${head.size}`);
  }
  return head;
}

function bytesOf(text: string): Uint8Array {
  const bytes = Buffer.from(text, 'base64');
  if (bytes.toString('base64') !== text) throw refused('has other base64');
  return bytes;
}

function refused(what: string): Problem {
  return new Problem('E_LOG', `log proof ${what}`);
}
