/** What hosts and control say to each other under /agent/v1. Spec: docs/specs/protocol.md. */
import * as v from 'valibot';
import { envelope } from './documents.ts';
import { groupName, hostId, name, sha256Hex } from './ids.ts';
import { atMs, facts, positive, publicKeyHex, whole } from './scalars.ts';

/**
 * Enrolment. The request is signed (RFC 9421) with the new Ed25519 key: proof of possession. Its keyid is the key id below.
 * The same key with the same token may ask again after a lost answer and gets the same host.
 */
export const enrollRequest = v.strictObject({
  /** One-use join token. */
  token: v.pipe(v.string(), v.regex(/^sbj_[A-Za-z0-9_-]{22,64}$/, 'expected a join token')),
  /** Raw Ed25519 public key. Its key id is that of bundle/keys.ts; the host id is `h-` and the first 32 digits of it. */
  signKey: publicKeyHex,
  /** Raw X25519 public key, to which secrets are sealed. */
  sealKey: publicKeyHex,
  class: name,
  arch: v.picklist(['amd64', 'arm64']),
  agentVersion: v.pipe(v.string(), v.maxLength(64)),
  facts,
  /** The one-use text of control's answer to a host whose clock is wrong; then the time of the signature is not looked at. */
  challenge: v.optional(v.pipe(v.string(), v.regex(/^[0-9a-f]{32}$/))),
});
export type EnrollRequest = v.InferOutput<typeof enrollRequest>;

export const HOST_STATEMENT_PAYLOAD_TYPE = 'application/vnd.switchback.host-statement+json';
/** Payload of a host statement: what control vouches for. The group that a host follows comes from here only. */
export const hostStatement = v.object({
  schema: v.literal('switchback.host-statement/1'),
  host: hostId,
  group: groupName,
  class: name,
  arch: v.picklist(['amd64', 'arm64']),
  signKey: publicKeyHex,
  sealKey: publicKeyHex,
  /** Grows with each statement of a host; an older one is refused. */
  seq: positive,
  issuedAtMs: atMs,
});
export type HostStatement = v.InferOutput<typeof hostStatement>;

export const enrollAnswer = v.object({
  host: hostId,
  group: groupName,
  class: name,
  /** DSSE by the enrolment key: host, group, class, arch, both keys, time of issue. */
  statement: envelope,
  /** Raw public key that signs statements: kept by the host, which accepts no statement by another one. */
  enrolmentKey: publicKeyHex,
  /** The newest root.json as text, for hosts whose anchor was given as a digest. */
  root: v.string(),
  rootSha256: sha256Hex,
  serverTimeMs: atMs,
  pollAfterSeconds: positive,
});
export type EnrollAnswer = v.InferOutput<typeof enrollAnswer>;

/** Signed (RFC 9421) with the host's key; keyid is the key id. The body says who asks, so that a wrong pairing is E_FORBIDDEN. */
export const tokenRequest = v.strictObject({
  host: hostId,
  bootId: v.pipe(v.string(), v.minLength(1), v.maxLength(64)),
  /** Asks for signed time: comes back in it, so that no other answer fits. */
  nonce: v.optional(v.pipe(v.string(), v.regex(/^[0-9a-f]{32}$/))),
  challenge: enrollRequest.entries.challenge,
});
export const tokenAnswer = v.object({
  /** Bearer for /desired and /report. Opaque to hosts. */
  token: v.string(),
  expiresInSeconds: positive,
  serverTimeMs: atMs,
  /** The newest statement of this host; it changes when the host was moved to another group. */
  statement: envelope,
  /** DSSE by the enrolment key over a `signedTime`, when the request had a nonce. */
  time: v.optional(envelope),
});

export const TIME_PAYLOAD_TYPE = 'application/vnd.switchback.time+json';
/** The time of control as the answer to one question of one host (D07): what may move the clock floor of a host. */
export const signedTime = v.object({
  schema: v.literal('switchback.time/1'),
  host: hostId,
  nonce: v.string(),
  atMs,
});
export type SignedTime = v.InferOutput<typeof signedTime>;

export const KEY_CHANGE_PAYLOAD_TYPE = 'application/vnd.switchback.key-change+json';
/** A host takes new keys. The envelope is signed by the old and by the new key, the request by the old one (E15). */
export const keyChange = v.strictObject({
  schema: v.literal('switchback.key-change/1'),
  host: hostId,
  oldKeyId: sha256Hex,
  signKey: publicKeyHex,
  sealKey: publicKeyHex,
});
export type KeyChange = v.InferOutput<typeof keyChange>;
export const rotateRequest = v.strictObject({ host: hostId, change: envelope });
/** The new statement; from here on the old key is nobody's. */
export const rotateAnswer = v.object({ statement: envelope });

/** Details of E_UNAUTHENTICATED when only the time of a signature is wrong. */
export const clockDetails = v.object({
  challenge: v.pipe(v.string(), v.regex(/^[0-9a-f]{32}$/)),
  time: v.optional(envelope),
});
export type TokenAnswer = v.InferOutput<typeof tokenAnswer>;

/** Answer to a report: everything up to `ackSeq` is on disk. */
export const reportAnswer = v.object({
  ackSeq: whole,
  wantFacts: v.boolean(),
  pollAfterSeconds: positive,
});
export type ReportAnswer = v.InferOutput<typeof reportAnswer>;

/** Header of an answer to a poll: control was restored and has not heard of this host since, it should report everything. */
export const REPORT_WANTED_HEADER = 'report-wanted';

/**
 * The header Agent-State of a poll, at most 160 bytes, `key=value` joined by `;`:
 * b: first 16 digits of the running artifact id, or `-`; p: state of the machine; h: ok, bad or `-`; q: last report seq;
 * boot: first 16 digits of the boot id without dashes; f: first 8 digits of the sha256 of the facts (optional).
 */
export interface AgentState {
  readonly running: string | null;
  readonly state: string;
  readonly healthy: boolean | null;
  readonly seq: number;
  readonly boot: string;
  readonly factsHash: string | null;
}

const AGENT_STATE_MAX = 160;
const healthWord = (healthy: boolean | null): string =>
  healthy === null ? '-' : healthy ? 'ok' : 'bad';

/** Text of the header Agent-State. */
export function formatAgentState(state: AgentState): string {
  const text = [
    `b=${state.running?.slice(0, 16) ?? '-'}`,
    `p=${state.state}`,
    `h=${healthWord(state.healthy)}`,
    `q=${state.seq}`,
    `boot=${state.boot.replaceAll('-', '').slice(0, 16)}`,
  ].join(';');
  return state.factsHash === null ? text : `${text};f=${state.factsHash.slice(0, 8)}`;
}

/** Reads the header Agent-State; null when it is malformed (the poll is answered all the same). */
export function parseAgentState(text: string): AgentState | null {
  if (text.length > AGENT_STATE_MAX) return null;
  const match =
    /^b=(-|[0-9a-f]{16});p=([a-z-]{1,32});h=(ok|bad|-);q=(\d{1,15});boot=([0-9a-zA-Z]{1,16})(?:;f=([0-9a-f]{8}))?$/.exec(
      text,
    );
  if (!match) return null;
  const [, running = '-', state = '', health = '-', seq = '0', boot = '', factsHash] = match;
  return {
    running: running === '-' ? null : running,
    state,
    healthy: health === '-' ? null : health === 'ok',
    seq: Number(seq),
    boot,
    factsHash: factsHash ?? null,
  };
}
