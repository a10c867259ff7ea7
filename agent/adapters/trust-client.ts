/**
 * The agent's `Trust`: the TUF client with its durable state, its clock with a floor, and the verification order.
 * docs/specs/trust.md, sections 9 to 11.
 */
import { pathToFileURL } from 'node:url';
import type { Offer, Trust } from '#/agent/ports.ts';
import { checkCompatibility } from '#/bundle/compatibility.ts';
import { MANIFEST_PAYLOAD_TYPE, openEnvelope } from '#/bundle/dsse.ts';
import { publicKeyOf, sha256 } from '#/bundle/keys.ts';
import { requireConfigNamed } from '#/bundle/manifest.ts';
import {
  type CacheNames,
  loadRootChain,
  refresh,
  type Session,
  type TrustFetch,
  type TrustStore,
} from '#/bundle/trust/client.ts';
import { imageRole } from '#/bundle/trust/documents.ts';
import type { Documents } from '#/bundle/trust/find.ts';
import type { LogMemory } from '#/bundle/trust/logged.ts';
import {
  applyPolicy,
  type HostContext,
  manifestOf,
  pinHindrance,
  readManifest,
  readPin,
  requireAllowed,
  type TrustMemory,
  type VerifiedManifest,
  withoutKeys,
} from '#/bundle/trust/resolve.ts';
import { agentRules, ed25519KeyOf } from '#/bundle/trust/rules.ts';
import {
  delegationOf,
  loadRoleAlone,
  requireFreshRoot,
  roleOf,
  TARGETS,
  type TrustedSet,
} from '#/bundle/trust/trusted-set.ts';
import type { ConfigRef } from '#/protocol/documents.ts';
import { type ErrorCode, isProblem, Problem } from '#/protocol/errors.ts';
import { versionIdOf } from '#/protocol/ids.ts';
import { readBundleEnvelope } from './trust-bundle-file.ts';
import { readOrRebuildMemory, writeMemory } from './trust-state.ts';

/** Something that an operator may want to know and that stops nothing. */
export interface TrustNotice {
  /** A code of protocol/errors.ts, where there is one for it. */
  readonly code: ErrorCode | null;
  readonly kind: 'equivocation' | 'clock-behind' | 'clock-ahead' | 'state-rebuilt' | 'no-switch';
  readonly message: string;
}

const noticeCodes: Readonly<Record<TrustNotice['kind'], ErrorCode | null>> = {
  equivocation: 'E_EQUIVOCATION',
  'clock-behind': null,
  'clock-ahead': null,
  'state-rebuilt': 'E_STATE',
  'no-switch': null,
};

export interface TrustOptions {
  /** root.json, and for hosts that never reach a repository targets.json, from the read-only part of the agent. */
  readonly anchor: { readonly root: Uint8Array; readonly targets: Uint8Array | null };
  readonly fetch: TrustFetch;
  /** The writable cache: `read` and durable `replace` of plain file names. */
  readonly store: TrustStore;
  /** Owner of the trust state; the host id, or what names the host before it is enrolled. */
  readonly owner: string;
  readonly arch: 'amd64' | 'arm64';
  /** `agentNumber` of the running agent. */
  readonly agent: number;
  /** When the agent was built, ms: time was never earlier. */
  readonly builtAtMs: number;
  readonly onNotice: (notice: TrustNotice) => void;
  /** Secret halves of the keys that secrets are sealed to, the newest first; absent: nothing can be sealed for this host. */
  readonly sealSecrets?: () => readonly Uint8Array[];
}

export interface TrustStatus {
  readonly rootVersion: number;
  readonly rootExpires: number;
  readonly timestampVersion: number | null;
  /** Seconds since 1970: later than this, no new version is accepted; in the past means that control is silent or frozen. */
  readonly timestampExpires: number | null;
  readonly timeFloor: number;
}

export interface AgentTrust extends Trust {
  /** Brings metadata, floors and revocations up to date without any offer: detects a freeze. */
  refresh(nowMs: number): Promise<TrustStatus>;
  status(): Promise<TrustStatus>;
  /** The newest tree of the audit log that was seen, for reports; null before the first pin that was in one. */
  seenLog(): LogMemory | null;
  /** Time that control signed as the answer to our own nonce: the only other source that may raise the floor of time. */
  observeSignedTime(signedMs: number, systemMs: number): Promise<void>;
}

/** Differences up to this between the system clock and signed time are nothing to tell. */
const CLOCK_TOLERANCE_SECONDS = 300;

/** Each root under its own name, so that the chain from the anchor is checked at every start. */
const cacheNames: CacheNames = {
  root: (version) => `root.${version}.json`,
  role: (role) => `role.${role}.json`,
};

/** The verifier. Nothing is read or fetched before the first call; calls must not overlap. */
export function createTrust(options: TrustOptions): AgentTrust {
  return new Verifier(options);
}

interface Loaded {
  readonly set: TrustedSet;
  readonly memory: TrustMemory;
}

class Verifier implements AgentTrust {
  readonly #options: TrustOptions;
  readonly #documents: Documents;
  #loaded: Loaded | null = null;

  constructor(options: TrustOptions) {
    this.#options = options;
    const name = (path: string): string => `document.${encodeURIComponent(path)}`;
    this.#documents = {
      read: (path) => options.store.read(name(path)),
      replace: (path, bytes) => options.store.replace(name(path), bytes),
    };
  }

  async resolve(...[assignment, context]: Parameters<Trust['resolve']>): Promise<Offer | null> {
    const { offer } = assignment;
    if (offer === null) return null;
    if (assignment.group !== context.group) {
      throw new Problem('E_PIN', `assignment of ${assignment.group}, host of ${context.group}`);
    }
    const host: HostContext = {
      group: context.group,
      host: context.host,
      class: context.class,
      arch: this.#options.arch,
      agent: this.#options.agent,
    };
    const { set, session } = await this.#refresh(context.nowMs);
    const { memory } = await this.#load();
    const pin = await readPin(set, session, this.#documents, memory, host);
    if (pin.desired === null) {
      await this.#keep(pin.set, memory);
      this.#notice('no-switch', `group ${host.group} is not pinned`);
      return null;
    }
    await this.#keep(pin.set, pin.memory);
    const version = versionIdOf(offer.artifactId, offer.configId);
    const hindrance = pinHindrance(pin.desired, version, host.host, session.now);
    if (hindrance !== null) {
      this.#notice('no-switch', hindrance);
      return null;
    }
    const verified = await readManifest(pin, session, this.#documents, version, host);
    await this.#keep(verified.set, pin.memory);
    const config =
      verified.config === null
        ? null
        : await this.#config(verified.config, verified, session, context);
    return {
      ...(config === null ? {} : { configId: config.configId, config }),
      artifactId: verified.artifactId,
      manifest: verified.manifest,
      manifestBytes: verified.manifestBytes,
      sources: offer.sources,
      rolloutId: offer.rolloutId,
      seq: pin.desired.seq,
      retryGeneration: offer.retryGeneration,
    };
  }

  /** Step 8. Loaded only here: most hosts have no config set. */
  async #config(
    ref: ConfigRef,
    { artifactId, manifest }: VerifiedManifest,
    session: Session,
    { host, group }: Parameters<Trust['resolve']>[1],
  ): Promise<NonNullable<Offer['config']>> {
    const { readConfig } = await import('#/bundle/trust/configured.ts');
    const { set, memory } = await this.#load();
    const { revokedKeyIds } = memory;
    const sealSecrets = this.#options.sealSecrets?.() ?? [];
    const context = { group, host, artifactId, manifest, revokedKeyIds, sealSecrets };
    const verified = await readConfig(withoutKeys(set, revokedKeyIds), session, ref, context);
    await this.#keep(verified.set, memory);
    const { known, own } = verified;
    return { configId: known.configId, setBytes: known.bytes, ...own };
  }

  async resolveFile(...[path, context]: Parameters<Trust['resolveFile']>): Promise<Offer> {
    await this.#refreshWhereAnswered(context.nowMs);
    const { memory } = await this.#load();
    const now = await this.#now(context.nowMs);
    const { keys, threshold } = await this.#releaseKeys(context.class, now);
    const payload = openEnvelope(await readBundleEnvelope(path), {
      keys: keys.filter((key) => !memory.revokedKeyIds.includes(key.keyId)),
      threshold,
      payloadType: MANIFEST_PAYLOAD_TYPE,
    });
    const verified = manifestOf(payload, sha256(payload));
    const { manifest } = verified;
    const { arch, agent } = this.#options;
    checkCompatibility(manifest, { class: context.class, arch, agent, runningRelease: null });
    requireAllowed(memory, manifest.class, manifest.release, verified.artifactId);
    // Only a pin names a config set.
    requireConfigNamed(manifest.config, false, verified.artifactId);
    const committed = memory.committed[manifest.class] ?? 0;
    if (manifest.release < committed) {
      throw new Problem(
        'E_FLOOR',
        `release ${manifest.release} of ${manifest.class} in a file, ${committed} was committed`,
        { release: manifest.release, floor: committed },
      );
    }
    return {
      ...verified,
      sources: [pathToFileURL(path).href],
      rolloutId: null,
      seq: 0,
      retryGeneration: 0,
    };
  }

  async raiseFloor(offerClass: string, release: number): Promise<void> {
    const { set, memory } = await this.#load();
    if (release <= (memory.committed[offerClass] ?? 0)) return;
    await this.#keep(set, {
      ...memory,
      committed: { ...memory.committed, [offerClass]: release },
    });
  }

  async refresh(nowMs: number): Promise<TrustStatus> {
    await this.#refresh(nowMs);
    return this.status();
  }

  async status(): Promise<TrustStatus> {
    const { set, memory } = await this.#load();
    return {
      rootVersion: set.root.signed.version,
      rootExpires: set.root.signed.expires,
      timestampVersion: set.timestamp?.signed.version ?? null,
      timestampExpires: set.timestamp?.signed.expires ?? null,
      timeFloor: memory.timeFloor,
    };
  }

  seenLog(): LogMemory | null {
    return this.#loaded?.memory.log ?? null;
  }

  async observeSignedTime(signedMs: number, systemMs: number): Promise<void> {
    const signed = Math.floor(signedMs / 1000);
    const system = Math.floor(systemMs / 1000);
    if (system > signed + CLOCK_TOLERANCE_SECONDS) {
      this.#notice('clock-ahead', `system clock is ${system - signed} s ahead of control`);
    }
    const { set, memory } = await this.#load();
    await this.#keep(set, withTimeFloor(set, memory, signed));
  }

  /** Steps 1 to 3: roots, timestamp, snapshot, targets, floors, revocations. What was learnt is durable on return. */
  async #refresh(nowMs: number): Promise<{ set: TrustedSet; session: Session }> {
    try {
      return await this.#refreshOnce(nowMs);
    } catch (error) {
      // The cache may be ahead of the set in memory now; only what is on disk may be the base of rollback checks.
      this.#loaded = null;
      throw error;
    }
  }

  async #refreshOnce(nowMs: number): Promise<{ set: TrustedSet; session: Session }> {
    const loaded = await this.#load();
    const session = this.#session(await this.#now(nowMs));
    let set = await refresh(loaded.set, session);
    // Kept before the policy is looked at: what fails after this must not make the host forget it.
    await this.#keep(set, withTimeFloor(set, loaded.memory, set.timestamp?.signed.issued ?? 0));
    const policy = await applyPolicy(set, session, this.#documents, (await this.#load()).memory);
    ({ set } = policy);
    await this.#keep(set, policy.memory);
    return { set, session };
  }

  /**
   * Floors and revocations as they are now, for a state that was lost or put back (H03, H05). A file is the way to help a host
   * whose control is gone or lies: what it does not answer, or what is refused of it, changes nothing; the watch of freshness tells.
   */
  async #refreshWhereAnswered(nowMs: number): Promise<void> {
    try {
      await this.#refresh(nowMs);
    } catch (error) {
      if (!isProblem(error)) throw error;
    }
  }

  #session(now: number): Session {
    return {
      fetch: this.#options.fetch,
      store: this.#options.store,
      names: cacheNames,
      now,
      onEquivocation: (role) =>
        this.#notice('equivocation', `${role}: two contents were signed with one version`),
    };
  }

  /** Seconds since 1970: the system clock, but never earlier than what was signed or built (Clock without RTC). */
  async #now(systemMs: number): Promise<number> {
    const { memory } = await this.#load();
    const system = Math.floor(systemMs / 1000);
    const floor = Math.max(memory.timeFloor, Math.floor(this.#options.builtAtMs / 1000));
    if (system < floor - CLOCK_TOLERANCE_SECONDS) {
      this.#notice('clock-behind', `system clock is ${floor - system} s behind signed time`);
    }
    return Math.max(system, floor);
  }

  /** Who may release for the class: from the verified targets, kept from earlier or built in. */
  async #releaseKeys(
    imageClass: string,
    now: number,
  ): Promise<{ keys: ReturnType<typeof publicKeyOf>[]; threshold: number }> {
    const { set } = await this.#load();
    requireFreshRoot(set, now);
    const withTargets = await this.#targetsAlone(set, now);
    const name = { role: imageRole(imageClass), delegator: 'targets' };
    const { delegation, keys } = delegationOf(withTargets, name);
    const accepted = delegation.role.keyIds.flatMap((keyId) => {
      const key = keys.get(keyId);
      const bytes = key === undefined ? null : ed25519KeyOf(key);
      return bytes === null ? [] : [publicKeyOf(bytes)];
    });
    return { keys: accepted, threshold: delegation.role.threshold };
  }

  /** The newest of the targets in the set, in the cache and in the anchor that verifies. */
  async #targetsAlone(set: TrustedSet, now: number): Promise<TrustedSet> {
    const candidates = [
      await this.#options.store.read(cacheNames.role('targets')),
      this.#options.anchor.targets,
    ];
    let best: TrustedSet | null = null;
    let refusal: Problem | null = null;
    for (const bytes of candidates) {
      if (bytes === null) continue;
      try {
        const next = loadRoleAlone(set, TARGETS, bytes, now);
        if (best === null || versionOf(next) > versionOf(best)) best = next;
      } catch (error) {
        if (!isProblem(error)) throw error;
        refusal = error;
      }
    }
    if (best !== null) return best;
    if (refusal !== null) throw refusal;
    throw new Problem(
      'E_SIGS',
      'no release keys are known: this host has never reached a repository, and none are built in',
    );
  }

  async #load(): Promise<Loaded> {
    if (this.#loaded === null) {
      const { anchor, store, owner } = this.#options;
      const memory = await readOrRebuildMemory(store, owner, (problem) =>
        this.#notice('state-rebuilt', problem.message),
      );
      const set = await loadRootChain(anchor.root, agentRules, store, cacheNames);
      this.#loaded = { set, memory };
    }
    return this.#loaded;
  }

  /** Keeps the set in memory, under the rules of the agent, and what changed of the memory on disk. */
  async #keep(set: TrustedSet, memory: TrustMemory): Promise<void> {
    const before = this.#loaded?.memory;
    if (before === undefined || JSON.stringify(before) !== JSON.stringify(memory)) {
      await writeMemory(this.#options.store, this.#options.owner, memory);
    }
    this.#loaded = { set: { ...set, rules: agentRules }, memory };
  }

  #notice(kind: TrustNotice['kind'], message: string): void {
    this.#options.onNotice({ kind, code: noticeCodes[kind], message });
  }
}

/**
 * The memory with the floor of time raised to `signed`, but never past the expiry of root or targets: a stolen online key
 * can not push hosts beyond what the offline keys signed.
 */
function withTimeFloor(set: TrustedSet, memory: TrustMemory, signed: number): TrustMemory {
  const targets = roleOf(set, TARGETS)?.signed.expires ?? set.root.signed.expires;
  const limit = Math.min(set.root.signed.expires, targets) - 1;
  const timeFloor = Math.max(memory.timeFloor, Math.min(signed, limit));
  return timeFloor === memory.timeFloor ? memory : { ...memory, timeFloor };
}

function versionOf(set: TrustedSet): number {
  return roleOf(set, TARGETS)?.signed.version ?? 0;
}
