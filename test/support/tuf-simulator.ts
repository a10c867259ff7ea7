/**
 * A TUF repository that does what it is told, also wrong things: documents are plain and mutable, keys of any kind sign, and
 * nothing is checked. For attacks on the client, for its command line, and for comparing it with another client.
 */
import { generateKeyPairSync, sign as signWith, type KeyObject } from 'node:crypto';
import { canonicalDocument, canonicalJson } from '#/bundle/canonical.ts';
import { hexOf, keyIdOf, sha256, type TufKey } from '#/bundle/keys.ts';
import type { TrustFetch } from '#/bundle/trust/client.ts';
import { dateText } from '#/bundle/trust/shape.ts';
import type {
  MetaDocument,
  RootDocument,
  SignedDocument,
  SnapshotDocument,
  TargetsDocument,
  TimestampDocument,
} from '#/control/trust/repository.ts';
import { Problem } from '#/protocol/errors.ts';
import { NOW_MS, signerNumber } from '#/test/support/trust-world.ts';

export interface SimSigner {
  readonly keyId: string;
  readonly key: TufKey;
  readonly sign: (message: Uint8Array) => string;
}

export function edSigner(number: number): SimSigner {
  const signer = signerNumber(number);
  const key = {
    keytype: 'ed25519',
    scheme: 'ed25519',
    keyval: { public: hexOf(signer.key.bytes) },
  };
  return { keyId: keyIdOf(key), key, sign: (message) => hexOf(signer.sign(message)) };
}

export function ecdsaSigner(): SimSigner {
  const pair = generateKeyPairSync('ec', { namedCurve: 'P-256' });
  return otherSigner('ecdsa', 'ecdsa-sha2-nistp256', pair.publicKey, pair.privateKey);
}

export function rsaSigner(scheme: 'rsassa-pss-sha256' | 'rsa-pkcs1v15-sha256'): SimSigner {
  const pair = generateKeyPairSync('rsa', { modulusLength: 2048 });
  return otherSigner('rsa', scheme, pair.publicKey, pair.privateKey);
}

function otherSigner(
  keytype: string,
  scheme: string,
  publicKey: KeyObject,
  privateKey: KeyObject,
): SimSigner {
  const pem = publicKey.export({ type: 'spki', format: 'pem' }).toString();
  const key = { keytype, scheme, keyval: { public: pem } };
  const options = scheme === 'rsassa-pss-sha256' ? { key: privateKey, padding: 6 } : privateKey;
  return {
    keyId: keyIdOf(key),
    key,
    sign: (message) => signWith('sha256', message, options).toString('hex'),
  };
}

const SAFE_EXPIRY = dateText(NOW_MS / 1000 + 30 * 86_400);
const spec_version = '1.0.34';

export function emptyTargets(): TargetsDocument {
  return { _type: 'targets', spec_version, version: 1, expires: SAFE_EXPIRY, targets: {} };
}

export class TufSimulator {
  readonly root: RootDocument = {
    _type: 'root',
    spec_version,
    version: 1,
    expires: SAFE_EXPIRY,
    consistent_snapshot: true,
    keys: {},
    roles: {},
  };
  readonly timestamp: TimestampDocument = {
    _type: 'timestamp',
    spec_version,
    version: 1,
    expires: SAFE_EXPIRY,
    meta: { 'snapshot.json': { version: 1, length: 1, hashes: { sha256: '' } } },
    'x-switchback-issued': dateText(NOW_MS / 1000),
  };
  readonly snapshot: SnapshotDocument = {
    _type: 'snapshot',
    spec_version,
    version: 1,
    expires: SAFE_EXPIRY,
    meta: {},
  };
  /** `targets` and delegated roles by name. */
  readonly roles = new Map<string, TargetsDocument>([['targets', emptyTargets()]]);
  readonly signers = new Map<string, SimSigner[]>();
  /** What is served: `metadata/…`, `targets/…`. */
  readonly files = new Map<string, Uint8Array>();
  readonly requests: string[] = [];
  /** List lengths and digests, as our own repositories do. */
  digests = true;
  readonly #newSigner: () => SimSigner;

  constructor(newSigner?: () => SimSigner) {
    let next = 1000;
    this.#newSigner = newSigner ?? (() => edSigner((next += 1)));
    for (const role of ['root', 'timestamp', 'snapshot', 'targets']) {
      this.root.roles[role] = { keyids: [], threshold: 1 };
      this.addKey(role);
    }
    this.publishRoot();
    this.publish();
  }

  newSigner(): SimSigner {
    return this.#newSigner();
  }

  /** A key more for a top-level role; in effect once the root is published. */
  addKey(role: string, signer = this.#newSigner()): SimSigner {
    this.root.keys[signer.keyId] = signer.key;
    this.root.roles[role]?.keyids.push(signer.keyId);
    this.signers.set(role, [...(this.signers.get(role) ?? []), signer]);
    return signer;
  }

  /** Other keys for a top-level role, as many as its threshold. */
  rotate(role: string): void {
    const entry = this.root.roles[role] ?? { keyids: [], threshold: 1 };
    entry.keyids = [];
    this.signers.set(role, []);
    for (let count = 0; count < entry.threshold; count += 1) this.addKey(role);
  }

  delegate(
    delegator: string,
    role: string,
    paths: string[],
    { terminating = false, threshold = 1, signer = this.#newSigner() } = {},
  ): TargetsDocument {
    const by = this.role(delegator);
    by.delegations ??= { keys: {}, roles: [] };
    by.delegations.keys[signer.keyId] = signer.key;
    by.delegations.roles.push({
      name: role,
      keyids: [signer.keyId],
      threshold,
      terminating,
      paths,
    });
    const others = (this.signers.get(role) ?? []).filter((each) => each.keyId !== signer.keyId);
    this.signers.set(role, [...others, signer]);
    if (!this.roles.has(role)) this.roles.set(role, emptyTargets());
    return this.role(role);
  }

  role(name: string): TargetsDocument {
    const document = this.roles.get(name);
    if (document === undefined) throw new Error(`no role ${name}`);
    return document;
  }

  addTarget(role: string, path: string, text: string): void {
    const bytes = Buffer.from(text);
    const digest = sha256(bytes);
    this.role(role).targets[path] = { length: bytes.length, hashes: { sha256: digest } };
    const slash = path.lastIndexOf('/') + 1;
    this.files.set(`targets/${path.slice(0, slash)}${digest}.${path.slice(slash)}`, bytes);
    this.files.set(`targets/${path}`, bytes);
  }

  /** Signs a document as it is. */
  sign(document: SignedDocument, signers: readonly SimSigner[]): Uint8Array {
    const message = canonicalJson(document);
    return canonicalDocument({
      signed: document,
      signatures: signers.map((signer) => ({ keyid: signer.keyId, sig: signer.sign(message) })),
    });
  }

  publishRoot(signers = this.signers.get('root') ?? []): Uint8Array {
    const bytes = this.sign(this.root, signers);
    this.files.set(`metadata/${this.root.version}.root.json`, bytes);
    return bytes;
  }

  /** The next root, signed by the old and the new keys. */
  bumpRoot(change: () => void = () => undefined): Uint8Array {
    const before = this.signers.get('root') ?? [];
    this.root.version += 1;
    change();
    const all = [...before, ...(this.signers.get('root') ?? [])];
    return this.publishRoot([...new Map(all.map((signer) => [signer.keyId, signer])).values()]);
  }

  publishRole(name: string): void {
    const document = this.role(name);
    const bytes = this.sign(document, this.signers.get(name) ?? []);
    const encoded = encodeURIComponent(name);
    this.files.set(`metadata/${document.version}.${encoded}.json`, bytes);
    this.files.set(`metadata/${encoded}.json`, bytes);
    this.snapshot.meta[`${name}.json`] = this.#metaOf(document.version, bytes);
  }

  publishSnapshot(): void {
    const bytes = this.sign(this.snapshot, this.signers.get('snapshot') ?? []);
    this.files.set(`metadata/${this.snapshot.version}.snapshot.json`, bytes);
    this.files.set('metadata/snapshot.json', bytes);
    this.timestamp.meta['snapshot.json'] = this.#metaOf(this.snapshot.version, bytes);
  }

  publishTimestamp(): void {
    this.files.set(
      'metadata/timestamp.json',
      this.sign(this.timestamp, this.signers.get('timestamp') ?? []),
    );
  }

  /** Signs and serves everything but the root, in the versions that the documents say. */
  publish(): void {
    for (const name of this.roles.keys()) this.publishRole(name);
    this.publishSnapshot();
    this.publishTimestamp();
  }

  /** A new version of the given roles, of the snapshot and of the timestamp. */
  bump(...roles: readonly string[]): void {
    for (const role of roles) {
      this.role(role).version += 1;
      this.publishRole(role);
    }
    this.snapshot.version += 1;
    this.publishSnapshot();
    this.timestamp.version += 1;
    this.publishTimestamp();
  }

  /** Metadata files that were asked for since the last call, as `root 2` or `timestamp`. */
  takeRequests(): string[] {
    const taken = this.requests.splice(0);
    return taken
      .filter((name) => name.startsWith('metadata/'))
      .map((name) =>
        name.slice('metadata/'.length, -'.json'.length).replace(/^(\d+)\.(.*)$/, '$2 $1'),
      );
  }

  fetch(): TrustFetch {
    const get = async (name: string, maxBytes: number): Promise<Uint8Array | null> => {
      this.requests.push(name);
      const bytes = this.files.get(name) ?? null;
      if (bytes !== null && bytes.length > maxBytes) {
        throw new Problem('E_TOOBIG', `${name} has ${bytes.length} bytes`);
      }
      return bytes;
    };
    return {
      metadata: (name, maxBytes) => get(`metadata/${name}`, maxBytes),
      target: (name, maxBytes) => get(`targets/${name}`, maxBytes),
    };
  }

  #metaOf(version: number, bytes: Uint8Array): MetaDocument {
    const digests = { length: bytes.length, hashes: { sha256: sha256(bytes) } };
    return (this.digests ? { version, ...digests } : { version }) as MetaDocument;
  }
}
