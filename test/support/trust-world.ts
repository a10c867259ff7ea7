/** A repository with starter trust in memory, an agent's verifier against it, and the means to tamper with both. */
import { createTrust, type AgentTrust, type TrustNotice } from '#/agent/adapters/trust-client.ts';
import { canonicalDocument } from '#/bundle/canonical.ts';
import { MANIFEST_PAYLOAD_TYPE, signEnvelope } from '#/bundle/dsse.ts';
import { hexOf, type Signer, signerOf } from '#/bundle/keys.ts';
import { signCheckpoint } from '#/bundle/log/checkpoint.ts';
import { entryBytes, subjectDigest } from '#/bundle/log/entry.ts';
import { inclusionProof } from '#/bundle/log/merkle.ts';
import { formatProof } from '#/bundle/log/proof.ts';
import { parseTilePath } from '#/bundle/log/tiles.ts';
import type { Manifest } from '#/bundle/manifest.ts';
import type { TrustFetch, TrustStore } from '#/bundle/trust/client.ts';
import { addGroup, createRepository } from '#/control/trust/delegations.ts';
import type { HeldKey, Repository, RepositoryFile } from '#/control/trust/repository.ts';
import { type StarterKeys, starterKeys } from '#/control/trust/starter.ts';
import { addRelease, setDesired, setLog } from '#/control/trust/targets.ts';
import type { ArtifactRef, Assignment, DesiredDocument } from '#/protocol/documents.ts';
import type { GroupName, HostId } from '#/protocol/ids.ts';
import { type MemoryTree, treeOf } from '#/test/support/log/memory-tree.ts';

/** 2026-11-25T00:00:00Z */
export const NOW_MS = 1_795_564_800_000;
export const DAY_MS = 86_400_000;
export const HOST = 'h-00112233445566778899aabbccddeeff' as HostId;

/** Seeds that are the same in each run. */
export function seedOf(number: number): Uint8Array {
  const seed = new Uint8Array(32);
  new DataView(seed.buffer).setUint32(0, number);
  seed[31] = 1;
  return seed;
}

export function signerNumber(number: number): Signer {
  return signerOf(seedOf(number));
}

export function manifestFor(release: number, changes: Partial<Manifest> = {}): Manifest {
  return {
    schema: 'switchback.manifest/1',
    name: 'app',
    class: 'web',
    arch: 'any',
    version: `1.0.${release}`,
    release,
    created: 1_700_000_000,
    minAgent: 0,
    minFrom: 0,
    index: { sha256: 'a'.repeat(64), sizeBytes: 100 },
    dataBytes: 0,
    payloads: [
      {
        name: 'root',
        kind: 'tree',
        chunker: 'fastcdc-16k',
        sizeBytes: 0,
        chunkCount: 0,
        entryCount: 1,
        treeSha256: 'b'.repeat(64),
      },
    ],
    activation: { kind: 'none' },
    health: [],
    trial: { soakMs: 0, deadlineMs: 60_000, maxBoots: 3, control: 'offline-ok' },
    ...changes,
  };
}

/** A store in memory; `files` may be tampered with. */
export function memoryStore(): TrustStore & { readonly files: Map<string, Uint8Array> } {
  const files = new Map<string, Uint8Array>();
  return {
    files,
    read: async (name) => files.get(name) ?? null,
    replace: async (name, bytes) => {
      files.set(name, Uint8Array.from(bytes));
    },
  };
}

export class TrustWorld {
  /** What is published, by name; tests replace entries to attack. */
  readonly files = new Map<string, Uint8Array>();
  readonly keys: StarterKeys;
  readonly requests: string[] = [];
  /** Keys that were made since. */
  readonly moreKeys: HeldKey[] = [];
  nowMs: number;
  /** The audit log, once `openLog` made one; pins are then logged and carry their proof. */
  log: { tree: MemoryTree; readonly signer: Signer; origin: string } | null = null;

  constructor(nowMs = NOW_MS) {
    this.nowMs = nowMs;
    let next = 100;
    this.keys = starterKeys(() => seedOf((next += 1)));
    this.publish(createRepository([...this.keys.root, ...this.keys.control], this.nowMs));
    this.publish(addGroup(this.repository(), 'blue'));
  }

  repository(): Repository {
    return {
      store: { read: (name) => this.files.get(name) ?? null },
      keys: [...this.keys.root, ...this.keys.control, ...this.moreKeys],
      nowMs: this.nowMs,
    };
  }

  publish(files: readonly RepositoryFile[]): void {
    for (const file of files) this.files.set(file.name, file.bytes);
  }

  key(use: string): Signer {
    const found = [...this.keys.root, ...this.keys.control].find((key) => key.use === use);
    if (found === undefined) throw new Error(`no ${use} key`);
    return found.signer;
  }

  release(release: number, changes: Partial<Manifest> = {}): ArtifactRef {
    const bytes = canonicalDocument(manifestFor(release, changes));
    const envelope = signEnvelope(MANIFEST_PAYLOAD_TYPE, bytes, [this.key('release')]);
    const added = addRelease(this.repository(), bytes, envelope);
    this.publish(added.files);
    return added.ref;
  }

  pin(artifact: ArtifactRef, seq: number, changes: Partial<DesiredDocument> = {}): void {
    this.publish(
      setDesired(
        this.repository(),
        this.logged({
          schema: 'switchback.desired/1',
          group: 'blue' as GroupName,
          seq,
          artifact,
          reason: 'test',
          waves: [],
          ...changes,
        }),
      ),
    );
  }

  /** The policy asks for proofs from here on. */
  openLog(): { tree: MemoryTree; readonly signer: Signer; origin: string } {
    const signer = signerNumber(77);
    const origin = 'switchback-log/test/1';
    this.log = { tree: treeOf(3), signer, origin };
    const keys = [hexOf(signer.key.bytes)];
    this.publish(setLog(this.repository(), { schema: 'switchback.log/1', origin, keys }));
    return this.log;
  }

  /** The pin with its proof, in the log. */
  logged(desired: DesiredDocument): DesiredDocument {
    const { log } = this;
    if (log === null) return desired;
    const id = log.tree.size + 1;
    const details = { digest: subjectDigest(desired) };
    const entry = {
      id,
      atMs: this.nowMs,
      actor: 'test',
      type: 'pin',
      subject: 'group/blue',
      details,
    };
    log.tree.append(entryBytes(entry));
    return { ...desired, logProof: this.proofOf(entry) };
  }

  /** The proof of an entry in the log as it is now. */
  proofOf(entry: Parameters<typeof entryBytes>[0]): string {
    const { log } = this;
    if (log === null) throw new Error('no log');
    const { size } = log.tree;
    return formatProof({
      entry: entryBytes(entry),
      index: entry.id - 1,
      hashes: inclusionProof(entry.id - 1, size, log.tree.read),
      checkpoint: signCheckpoint(log.origin, log.tree.head(), log.signer),
    });
  }

  fetch(): TrustFetch {
    const get = async (name: string): Promise<Uint8Array | null> => {
      this.requests.push(name);
      return this.files.get(name) ?? null;
    };
    return {
      metadata: (name) => get(`metadata/${name}`),
      target: (name) => get(`targets/${name}`),
      log: async (path) => {
        this.requests.push(`log/${path}`);
        return this.logTile(path);
      },
    };
  }

  /** A tile of the log as it is served: what a test put in its place goes first. */
  logTile(path: string): Uint8Array | null {
    const kept = this.files.get(`log/${path}`);
    if (kept !== undefined) return kept;
    const tile = parseTilePath(path);
    const bytes = tile === null ? null : (this.log?.tree.tile(tile) ?? null);
    return bytes === null || bytes.length !== (tile?.width ?? 0) * 32 ? null : bytes;
  }
}

export interface TestAgent {
  readonly trust: AgentTrust;
  readonly store: ReturnType<typeof memoryStore>;
  readonly notices: TrustNotice[];
}

/** An agent whose anchor is the first root. */
export function agentOf(
  world: TrustWorld,
  store = memoryStore(),
  changes: Partial<Parameters<typeof createTrust>[0]> = {},
): TestAgent {
  const notices: TrustNotice[] = [];
  const root = world.files.get('metadata/1.root.json');
  if (root === undefined) throw new Error('no root');
  const trust = createTrust({
    anchor: { root, targets: null },
    fetch: world.fetch(),
    store,
    owner: HOST,
    arch: 'amd64',
    agent: 1_000_000,
    builtAtMs: 0,
    onNotice: (notice) => notices.push(notice),
    ...changes,
  });
  return { trust, store, notices };
}

export function assignmentOf(artifact: ArtifactRef): Assignment {
  return {
    generation: 1,
    group: 'blue' as GroupName,
    offer: {
      artifactId: artifact.artifactId,
      rolloutId: null,
      sources: ['http://127.0.0.1:1/bundle'],
      retryGeneration: 0,
    },
    halted: false,
    rollbackGeneration: 0,
    why: '',
  };
}

export function contextOf(nowMs: number): {
  group: GroupName;
  host: HostId;
  class: string;
  nowMs: number;
} {
  return { group: 'blue' as GroupName, host: HOST, class: 'web', nowMs };
}
