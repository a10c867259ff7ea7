/** Metadata as a thief of keys would make it: any change of any document, signed by whatever keys, listed as it should be. */
import { canonicalDocument, canonicalJson } from '#/bundle/canonical.ts';
import { hexOf, type Signer, tufKeyOf } from '#/bundle/keys.ts';
import { metaOf, type MetaDocument } from '#/control/trust/repository.ts';
import type { TrustWorld } from '#/test/support/trust-world.ts';

interface Role {
  keyids: string[];
  threshold: number;
}
interface Delegated extends Role {
  name: string;
  paths: string[];
  terminating: boolean;
}
/** As much of any document as attacks change. */
export interface Loose {
  version: number;
  expires: unknown;
  spec_version: unknown;
  meta: Record<string, { version: number; length?: number; hashes?: object }>;
  keys: Record<string, object>;
  roles: Record<'root' | 'targets' | 'snapshot' | 'timestamp', Role>;
  targets: Record<string, { hashes: object }>;
  delegations: { keys: Record<string, object>; roles: Delegated[] };
  [other: string]: unknown;
}
export type Change = (signed: Loose) => void;

export class Forge {
  readonly #world: TrustWorld;

  constructor(world: TrustWorld) {
    this.#world = world;
  }

  /** The newest signed part of a role. */
  read(role: string): Loose {
    return this.#parse(this.nameOf(role));
  }

  /** The file that the newest version of a role is in. */
  nameOf(role: string): string {
    if (role === 'timestamp') return 'metadata/timestamp.json';
    const versions = [...this.#world.files.keys()].flatMap((name) => {
      const [, version, of] = /^metadata\/(\d+)\.(.+)\.json$/.exec(name) ?? [];
      return of === role ? [Number(version)] : [];
    });
    return `metadata/${Math.max(...versions)}.${role}.json`;
  }

  #parse(name: string): Loose {
    const bytes = this.#world.files.get(name);
    if (bytes === undefined) throw new Error(`no ${name}`);
    return (JSON.parse(Buffer.from(bytes).toString()) as { signed: Loose }).signed;
  }

  signed(document: object, signers: readonly Signer[], signaturesOf = plain): Uint8Array {
    const message = canonicalJson(document as never);
    return canonicalDocument({
      signed: document as never,
      signatures: signaturesOf(signers, message),
    });
  }

  /** The next timestamp. `text`: a change to its bytes after it was signed. */
  timestamp(
    change: Change = () => undefined,
    signers = [this.#world.key('timestamp')],
    text: (text: string) => string = (same) => same,
    signaturesOf = plain,
  ): void {
    const document = this.read('timestamp');
    document.version += 1;
    change(document);
    const bytes = this.signed(document, signers, signaturesOf);
    const changed = Buffer.from(text(Buffer.from(bytes).toString('latin1')), 'latin1');
    this.#world.files.set('metadata/timestamp.json', changed);
  }

  /** The next snapshot and a timestamp that lists it. */
  snapshot(change: Change, signers = [this.#world.key('snapshot')]): void {
    const document = this.read('snapshot');
    document.version += 1;
    change(document);
    const bytes = this.signed(document, signers);
    this.#world.files.set(`metadata/${document.version}.snapshot.json`, bytes);
    this.timestamp((timestamp) => {
      timestamp.meta = { 'snapshot.json': metaOf(document.version, bytes) };
    });
  }

  /** The next targets, with a change to what they delegate to a role. */
  delegation(
    role: string,
    change: (delegated: Delegated, all: Loose['delegations']) => void,
  ): void {
    this.role(
      'targets',
      ({ delegations }) => {
        const delegated = delegations.roles.find(({ name }) => name === role);
        if (delegated === undefined) throw new Error(`targets do not delegate to ${role}`);
        change(delegated, delegations);
      },
      [this.#world.key('targets')],
    );
  }

  /** The next version of targets or a delegated role, listed by snapshot and timestamp. */
  role(role: string, change: Change, signers: readonly Signer[]): MetaDocument {
    const document = this.read(role);
    document.version += 1;
    change(document);
    const bytes = this.signed(document, signers);
    this.#world.files.set(`metadata/${document.version}.${role}.json`, bytes);
    const meta = metaOf(document.version, bytes);
    this.snapshot((snapshot) => {
      snapshot.meta[`${role}.json`] = meta;
    });
    return meta;
  }

  /** The next root. */
  root(change: Change = () => undefined, signers = [this.#world.key('root')]): void {
    const document = this.read('root');
    document.version += 1;
    change(document);
    const bytes = this.signed(document, signers);
    this.#world.files.set(`metadata/${document.version}.root.json`, bytes);
    this.#world.files.set('metadata/root.json', bytes);
  }

  /** The entry of a role as it was listed by a snapshot of before. */
  entryOf(files: ReadonlyMap<string, Uint8Array>, role: string): MetaDocument {
    const read = (name: string): Loose =>
      (JSON.parse(Buffer.from(files.get(name) ?? '{}').toString()) as { signed: Loose }).signed;
    const listed = read('metadata/timestamp.json').meta['snapshot.json'] as MetaDocument;
    if (role === 'snapshot') return listed;
    return read(`metadata/${listed.version}.snapshot.json`).meta[`${role}.json`] as MetaDocument;
  }
}

export function plain(
  signers: readonly Signer[],
  message: Uint8Array,
): { keyid: string; sig: string }[] {
  return signers.map((signer) => ({
    keyid: signer.key.keyId,
    sig: hexOf(signer.sign(message)),
  }));
}

/** Adds a key to a role of root, under any id. */
export function nameKey(
  root: Loose,
  role: keyof Loose['roles'],
  signer: Signer,
  keyId = signer.key.keyId,
): void {
  root.keys[keyId] = tufKeyOf(signer.key.bytes);
  root.roles[role].keyids.push(keyId);
}
