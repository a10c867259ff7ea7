/**
 * The host's identity: keys that never leave it, and what control said at enrolment. Files under `identity/` of the state
 * directory, for root alone (docs/specs/durable-state.md). A change of the machine id means that this is a clone of another
 * host: it has no identity until it is enrolled anew (F62).
 */
import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import * as v from 'valibot';
import { canonicalDocument } from '#/bundle/canonical.ts';
import { openEnvelope, signEnvelope } from '#/bundle/dsse.ts';
import { bytesOfHex, hexOf, publicKeyOf, sha256, signerOf, type Signer } from '#/bundle/keys.ts';
import { sealPublicKeyOf } from '#/bundle/seal.ts';
import { parseStrictJson } from '#/bundle/strict-json.ts';
import {
  HOST_STATEMENT_PAYLOAD_TYPE,
  hostStatement,
  type HostStatement,
  KEY_CHANGE_PAYLOAD_TYPE,
  type KeyChange,
  signedTime,
  TIME_PAYLOAD_TYPE,
} from '#/protocol/agent-plane.ts';
import { envelope, type Envelope } from '#/protocol/documents.ts';
import { Problem } from '#/protocol/errors.ts';
import { signRequest, type SignedMessage } from '#/protocol/http-signature.ts';
import { groupName, hostId, name, sha256Hex } from '#/protocol/ids.ts';
import type { FilePort, Identity, Random } from '#/agent/ports.ts';
import { makeDirectory, readFile, removeFile, replaceFile } from './durable.ts';
import { stateFile, type StateFile, type StateFormat } from './state-file.ts';

/** Identity with all that the line to control and the verifier need. */
export interface HostIdentity extends Identity {
  readonly keyId: string;
  /** The public key that secrets are sealed to, hex. */
  readonly sealKey: string;
  readonly controlUrls: readonly string[];
  /** PEM of the only authorities that may vouch for control; null: those of the system. */
  readonly caPem: string | null;
  /** root.json that the invitation named by its digest: the anchor of trust. */
  readonly rootBytes: Uint8Array;
  readonly statement: Envelope;
  /** Headers that sign a request (RFC 9421). */
  signRequest(
    message: SignedMessage,
    body: Uint8Array,
    nowS: number,
  ): Readonly<Record<string, string>>;
  /** The time that control signed for this host and this nonce. E_NONCE for the answer to another question (D07), E_SIGS. */
  openTime(time: Envelope, nonce: string): number;
  /** Secret halves of the keys that secrets are sealed to: that of now, then those before its rotations. */
  sealSecrets(): readonly Uint8Array[];
  /** When the keys of now were made. */
  readonly keysMadeAtMs: number;
  /** Keys of a rotation that was begun and not finished. */
  nextKeys(): Promise<HostKeys | null>;
  /** Makes new keys, durably, and what control needs to take them for the old ones. The old ones are in use until `finish`. */
  beginRotation(nowMs: number): Promise<KeyRotation>;
  /** Keeps a newer statement: the host was moved to another group. Durable on return; counts from the next start. */
  keepStatement(statement: Envelope): Promise<void>;
}

/** New keys on their way. */
export interface KeyRotation {
  /** Signed by the old and by the new key. */
  readonly change: Envelope;
  /** Headers of a request by the new key: to find out whether control has taken it. */
  signRequest: HostIdentity['signRequest'];
  /** Control has taken them. Durable on return. E_FORKED when its statement names another key. */
  finish(statement: Envelope): Promise<void>;
}

/** Rotations after which something that was never sealed anew does not open any more: a year, by default. */
const FORMER_SEEDS = 4;

const keysSchema = v.object({
  signSeed: sha256Hex,
  sealSeed: sha256Hex,
  /** Of the keys before, the newest first: what was sealed to them is opened until it is sealed anew. */
  formerSealSeeds: v.optional(v.pipe(v.array(sha256Hex), v.maxLength(FORMER_SEEDS)), []),
  createdAtMs: v.number(),
  /** sha256 of the machine id of the host on which they were made. */
  machine: sha256Hex,
});
export type HostKeys = v.InferOutput<typeof keysSchema>;
const hostSchema = v.object({
  host: hostId,
  group: groupName,
  class: name,
  statement: envelope,
  /** Raw public key that signs statements: none by another is accepted. */
  enrolmentKey: sha256Hex,
  controlUrls: v.array(v.string()),
  caPem: v.nullable(v.string()),
  rootSha256: sha256Hex,
  enrolledAtMs: v.number(),
});
export type HostRecord = v.InferOutput<typeof hostSchema>;

const keysFormat: StateFormat<HostKeys> = {
  kind: 'host-keys',
  version: 1,
  limitBytes: 4096,
  schema: keysSchema,
};
const hostFormat: StateFormat<HostRecord> = {
  kind: 'host-record',
  version: 1,
  limitBytes: 128 * 1024,
  schema: hostSchema,
};
const ROOT_MAX_BYTES = 64 * 1024;
const STATEMENT_MAX_BYTES = 16 * 1024;
const TIME_MAX_BYTES = 4096;

/** The files of an identity. */
export interface IdentityStore {
  readonly keys: StateFile<HostKeys>;
  /** Keys that are to take the place of `keys`. */
  readonly nextKeys: StateFile<HostKeys>;
  readonly host: StateFile<HostRecord>;
  readRoot(): Promise<Uint8Array | null>;
  writeRoot(bytes: Uint8Array): Promise<void>;
  /** Makes the directory. */
  open(): Promise<void>;
  removeAll(): Promise<void>;
}

/** The store below an existing state directory. */
export function identityStore(files: FilePort, stateDirectory: string): IdentityStore {
  const directory = join(stateDirectory, 'identity');
  const rootPath = join(directory, 'root.json');
  const keys = stateFile(files, join(directory, 'keys'), keysFormat);
  const nextKeys = stateFile(files, join(directory, 'next-keys'), keysFormat);
  const host = stateFile(files, join(directory, 'host'), hostFormat);
  return {
    keys,
    nextKeys,
    host,
    readRoot: () => readFile(files, rootPath, ROOT_MAX_BYTES),
    writeRoot: (bytes) => replaceFile(files, rootPath, bytes),
    open: () => makeDirectory(files, directory),
    async removeAll() {
      // The record goes first: keys without a record are no identity.
      await host.remove();
      await keys.remove();
      await nextKeys.remove();
      await removeFile(files, rootPath);
    },
  };
}

/** sha256 of the machine id, hex. A host without one gets that of the empty text: then clones cannot be told. */
export function machineDigest(machineIdFile: string): string {
  let text = '';
  try {
    text = readFileSync(machineIdFile, 'latin1').trim();
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code !== 'ENOENT')
      throw new Problem('E_IO', `read ${machineIdFile}`, { path: machineIdFile }, { cause });
  }
  return createHash('sha256').update('switchback-machine\0').update(text).digest('hex');
}

/** New keys for this machine. */
export function makeKeys(
  random: Random,
  machine: string,
  nowMs: number,
  before: HostKeys | null = null,
): HostKeys {
  const formerSealSeeds =
    before === null ? [] : [before.sealSeed, ...before.formerSealSeeds].slice(0, FORMER_SEEDS);
  return {
    signSeed: random.hex(32),
    sealSeed: random.hex(32),
    formerSealSeeds,
    createdAtMs: nowMs,
    machine,
  };
}

/** The signer and both public keys of a host, hex. */
export function publicKeysOf(keys: HostKeys): {
  readonly signer: Signer;
  readonly signKey: string;
  readonly sealKey: string;
} {
  const signer = signerOf(seedOf(keys.signSeed));
  return {
    signer,
    signKey: hexOf(signer.key.bytes),
    sealKey: hexOf(sealPublicKeyOf(seedOf(keys.sealSeed))),
  };
}

function seedOf(hex: string): Uint8Array {
  const seed = bytesOfHex(hex, 32);
  if (seed === null) throw new Problem('E_STATE', 'a key of this host is not 32 bytes');
  return seed;
}

/**
 * The identity of this host; null when it is not enrolled.
 * @throws Problem E_FORKED when the keys were made on another machine: this is a clone; E_STATE for damaged files.
 */
export async function loadIdentity(
  store: IdentityStore,
  machine: string,
  random: Random,
): Promise<HostIdentity | null> {
  const record = await store.host.read();
  if (record === null) return null;
  const keys = await store.keys.read();
  const root = await store.readRoot();
  if (keys === null || root === null)
    throw new Problem(
      'E_STATE',
      `${record.host} is enrolled, but its keys or its trust root are gone`,
    );
  if (keys.machine !== machine) {
    throw new Problem(
      'E_FORKED',
      `this machine is a clone of ${record.host}: its machine id is another than at enrolment`,
      { host: record.host },
    );
  }
  if (sha256(root) !== record.rootSha256)
    throw new Problem('E_STATE', `the stored trust root is not the one of the enrolment`);
  return identityOf(store, record, keys, root, random);
}

function identityOf(
  store: IdentityStore,
  record: HostRecord,
  keys: HostKeys,
  rootBytes: Uint8Array,
  random: Random,
): HostIdentity {
  let now = { record, keys, ...publicKeysOf(keys) };
  const signed = (by: Signer, message: SignedMessage, body: Uint8Array, nowS: number) =>
    signRequest(
      message,
      createHash('sha256').update(body).digest(),
      { keyId: by.key.keyId, sign: by.sign },
      { nowS, nonce: random.hex(16) },
    );
  const keep = async (statement: Envelope): Promise<void> => {
    const own = openStatement(now.record.statement, record.enrolmentKey);
    const newer = openStatement(statement, record.enrolmentKey);
    if (newer.host !== record.host || newer.signKey !== now.signKey)
      throw new Problem(
        'E_FORKED',
        `control sent the statement of ${newer.host} to ${record.host}`,
      );
    if (newer.seq < own.seq) {
      throw new Problem('E_ROLLBACK', `host statement ${newer.seq} is older than ${own.seq}`, {
        host: record.host,
      });
    }
    const { group, class: hostClass } = newer;
    const next = { ...now.record, group, class: hostClass, statement };
    await store.host.write(next);
    now = { ...now, record: next };
  };
  return {
    host: record.host,
    group: record.group,
    class: record.class,
    controlUrls: record.controlUrls,
    caPem: record.caPem,
    rootBytes,
    get sealKey() {
      return publicKeysOf(now.keys).sealKey;
    },
    get keyId() {
      return now.signer.key.keyId;
    },
    sealSecrets: () => [now.keys.sealSeed, ...now.keys.formerSealSeeds].map(seedOf),
    get keysMadeAtMs() {
      return now.keys.createdAtMs;
    },
    get statement() {
      return now.record.statement;
    },
    sign: (payloadType, payload) => signEnvelope(payloadType, payload, [now.signer]),
    signRequest: (message, body, nowS) => signed(now.signer, message, body, nowS),
    openTime: (time, nonce) => openTime(time, record, nonce),
    keepStatement: keep,
    nextKeys: () => store.nextKeys.read(),
    async beginRotation(nowMs) {
      // One that was cut off goes on with the keys that control may have heard of.
      const next =
        (await store.nextKeys.read()) ?? makeKeys(random, now.keys.machine, nowMs, now.keys);
      await store.nextKeys.write(next);
      const { signer, signKey, sealKey } = publicKeysOf(next);
      const change: KeyChange = {
        schema: 'switchback.key-change/1',
        host: record.host,
        oldKeyId: now.signer.key.keyId,
        signKey,
        sealKey,
      };
      return {
        change: signEnvelope(KEY_CHANGE_PAYLOAD_TYPE, canonicalDocument(change), [
          now.signer,
          signer,
        ]),
        signRequest: (message, body, nowS) => signed(signer, message, body, nowS),
        async finish(statement) {
          const { signKey: stated } = openStatement(statement, record.enrolmentKey);
          if (stated !== signKey)
            throw new Problem('E_FORKED', 'control vouched for another key than the new one');
          await store.keys.write(next);
          now = { ...now, keys: next, ...publicKeysOf(next) };
          await keep(statement);
          await store.nextKeys.remove();
        },
      };
    },
  };
}

function openTime(envelopeOfTime: Envelope, record: HostRecord, nonce: string): number {
  const key = publicKeyOf(seedOf(record.enrolmentKey));
  const trust = { keys: [key], threshold: 1, payloadType: TIME_PAYLOAD_TYPE };
  const payload = openEnvelope(envelopeOfTime, trust);
  const parsed = v.safeParse(signedTime, parseStrictJson(payload, { maxBytes: TIME_MAX_BYTES }));
  if (!parsed.success) throw new Problem('E_SCHEMA', `signed time: ${parsed.issues[0].message}`);
  const { host, nonce: answered, atMs } = parsed.output;
  if (host !== record.host || answered !== nonce)
    throw new Problem('E_NONCE', `control answered ${host}, not our question`, { host });
  return atMs;
}

/** What a host statement says. E_SIGS unless the enrolment key signed it, E_SCHEMA for another shape. */
export function openStatement(statement: Envelope, enrolmentKey: string): HostStatement {
  const key = bytesOfHex(enrolmentKey, 32);
  if (key === null) throw new Problem('E_SCHEMA', 'the enrolment key is not 32 bytes');
  const payload = openEnvelope(statement, {
    keys: [publicKeyOf(key)],
    threshold: 1,
    payloadType: HOST_STATEMENT_PAYLOAD_TYPE,
  });
  const parsed = v.safeParse(
    hostStatement,
    parseStrictJson(payload, { maxBytes: STATEMENT_MAX_BYTES }),
  );
  if (parsed.success) return parsed.output;
  throw new Problem('E_SCHEMA', `host statement: ${parsed.issues[0].message}`);
}
