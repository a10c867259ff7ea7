/**
 * Checkpoints: what the log key signs (C2SP tlog-checkpoint in a signed note). No extension lines. The short id in a signature
 * line only finds the key; what counts is the key itself. docs/specs/audit-log.md.
 */
import { createHash } from 'node:crypto';
import { Problem } from '#/protocol/errors.ts';
import { SIGNATURE_BYTES, verify } from '../ed25519.ts';
import type { PublicKey, Signer } from '../keys.ts';
import { HASH_BYTES } from './merkle.ts';

/** A tree of the log: how many leaves, and their root. */
export interface TreeHead {
  readonly size: number;
  readonly root: Uint8Array;
}

export interface LogIdentity {
  /** First line of every checkpoint, and the name of the key: unique to this log. */
  readonly origin: string;
  readonly keys: readonly PublicKey[];
}

export const CHECKPOINT_MAX_BYTES = 8 * 1024;
const SIGNATURES_MAX = 16;
const KEY_HASH_BYTES = 4;
const ED25519 = 1;

/** Names of logs: no spaces, no plus (signed notes), printable ASCII. */
export function isOrigin(text: string): boolean {
  return /^[!-*,-~]{1,200}$/.test(text);
}

/** The text of a checkpoint, signed. */
export function signCheckpoint(origin: string, head: TreeHead, signer: Signer): string {
  const body = bodyOf(origin, head);
  const signature = Buffer.concat([
    keyHash(origin, signer.key),
    signer.sign(Buffer.from(body, 'utf8')),
  ]);
  return `${body}\n\u2014 ${origin} ${signature.toString('base64')}\n`;
}

function bodyOf(origin: string, head: TreeHead): string {
  return `${origin}\n${head.size}\n${Buffer.from(head.root).toString('base64')}\n`;
}

/** The first four bytes by which a signature line names its key. */
function keyHash(name: string, key: PublicKey): Uint8Array {
  const hash = createHash('sha256').update(`${name}\n`).update(Uint8Array.of(ED25519));
  return hash.update(key.bytes).digest().subarray(0, KEY_HASH_BYTES);
}

/**
 * The tree head of a checkpoint that a key of the log signed. Lines of unknown keys are passed over; a line of a known key
 * that does not verify, or that two known keys could have made, refuses the whole checkpoint.
 * @throws Problem E_LOG
 */
export function openCheckpoint(text: string, log: LogIdentity): TreeHead {
  if (text.length > CHECKPOINT_MAX_BYTES) throw refused(`of ${text.length} characters`);
  const at = text.indexOf('\n\n');
  if (at < 0 || !text.endsWith('\n')) throw refused('is no signed note');
  const body = text.slice(0, at + 1);
  const lines = text.slice(at + 2, -1).split('\n');
  if (lines.length > SIGNATURES_MAX) throw refused(`has ${lines.length} signatures`);
  const head = headOf(body, log.origin);
  const message = Buffer.from(body, 'utf8');
  const signers = new Set<string>();
  for (const line of lines) {
    const match = /^\u2014 ([!-*,-~]{1,200}) ([A-Za-z0-9+/]{8,}={0,2})$/.exec(line);
    if (match === null) throw refused('has a line that is no signature');
    const [, name = '', encoded = ''] = match;
    const bytes = Buffer.from(encoded, 'base64');
    if (bytes.toString('base64') !== encoded) throw refused('has a signature in other base64');
    if (name !== log.origin) continue;
    const id = bytes.subarray(0, KEY_HASH_BYTES);
    const known = log.keys.filter((key) => id.equals(keyHash(name, key)));
    const [key, second] = known;
    if (key === undefined) continue;
    if (second !== undefined && !Buffer.from(key.bytes).equals(second.bytes)) {
      throw refused('is signed by an id that two keys share');
    }
    const signature = bytes.subarray(KEY_HASH_BYTES);
    if (signature.length !== SIGNATURE_BYTES || !verify(message, signature, key.bytes)) {
      throw refused(`has a wrong signature by ${key.keyId}`);
    }
    if (signers.has(key.keyId)) throw refused(`is signed twice by ${key.keyId}`);
    signers.add(key.keyId);
  }
  if (signers.size === 0) throw refused('is not signed by the key of the log');
  return head;
}

function headOf(body: string, origin: string): TreeHead {
  const [name, sizeText = '', rootText = '', rest, ...more] = body.split('\n');
  if (name !== origin) throw refused(`is of ${name?.slice(0, 200)}, expected ${origin}`);
  if (rest !== '' || more.length > 0) throw refused('has lines that no checkpoint of ours has');
  const size = Number(sizeText);
  if (!/^(?:0|[1-9]\d{0,15})$/.test(sizeText) || !Number.isSafeInteger(size)) {
    throw refused(`names a size of ${sizeText.slice(0, 32)}`);
  }
  const root = Buffer.from(rootText, 'base64');
  if (root.length !== HASH_BYTES || root.toString('base64') !== rootText) {
    throw refused('names no sha256 as its root');
  }
  return { size, root };
}

function refused(what: string): Problem {
  return new Problem('E_LOG', `checkpoint ${what}`);
}
