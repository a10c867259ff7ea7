/**
 * The executors: one function per operation of the machine, each a call of a port (agent/core/effect.ts names which).
 * They decide nothing. After a crash each is called again with the same effect.
 */
import type {
  CheckOutcome,
  Executors,
  OfferRef,
  OperationResults,
  Operations,
} from './core/effect.ts';
import type { TrialPlan } from './core/ticket.ts';
import type {
  Activator,
  BootControl,
  Clock,
  Configs,
  Facts,
  Hooks,
  Installer,
  Offer,
  Probes,
  Progress,
  SlotId,
  Slots,
  StateStore,
  Trust,
  Windows,
} from './ports.ts';
import { checkCompatibility, type HostTraits } from '#/bundle/compatibility.ts';
import { manifestSchema, type HealthCheck, type Manifest } from '#/bundle/manifest.ts';
import { must, Problem } from '#/protocol/errors.ts';
import {
  artifactOf,
  configOf,
  type GroupName,
  type HostId,
  type VersionId,
  versionIdOf,
} from '#/protocol/ids.ts';
import * as v from 'valibot';

export interface HostPorts {
  readonly clock: Clock;
  readonly store: StateStore;
  readonly slots: Slots;
  readonly installer: Installer;
  readonly bootControl: BootControl;
  readonly activator: Activator;
  readonly probes: Probes;
  readonly hooks: Hooks;
  readonly windows: Windows;
  readonly trust: Trust;
  /** Absent: this host takes no config sets. */
  readonly configs?: Configs;
  readonly host: { readonly id: HostId; readonly group: GroupName; readonly class: string };
  /** Addresses of control, to which a source without a host of its own belongs. */
  readonly controlUrls: readonly string[];
  /** What a slot is recognised by after the switch: its real path, or its partition UUID. */
  readonly identityOf: (slot: SlotId) => string | Promise<string>;
  /** The host's own checks, which every version has to pass beside those of its manifest. */
  readonly localChecks: readonly HealthCheck[];
  /** What the agent itself is, for what an artifact asks for (F16, F17). */
  readonly traits: Omit<HostTraits, 'class' | 'runningRelease'>;
  /** The operator of this host agreed to versions that cannot be taken back (F53). */
  readonly acceptOneWay: boolean;
  /** Most tries that the boot loader can count; absent where the agent counts them itself. */
  readonly maxBoots?: number;
  /** Restarts of what runs, seen since it was activated; absent where nothing can see them. */
  readonly restarts?: () => number;
  readonly onProgress?: (progress: Progress) => void;
}

/** What the host runs and holds now, of all three parts. */
export async function observeHost(
  ports: Pick<HostPorts, 'clock' | 'slots' | 'bootControl' | 'activator'>,
): Promise<Facts> {
  const held = await ports.slots.observe();
  return {
    bootId: ports.clock.bootId(),
    ...held,
    active: await ports.activator.observe(),
    boot: await ports.bootControl.observe(),
  };
}

/** The checks of a trial: the manifest's and the host's own. Where names collide the host's own wins. */
export function checksOf(
  manifest: Manifest,
  localChecks: readonly HealthCheck[],
): readonly HealthCheck[] {
  const own = new Set(localChecks.map((check) => check.name));
  return [...manifest.health.filter((check) => !own.has(check.name)), ...localChecks];
}

/** How a trial of this manifest is judged on this host. */
export function planOf(
  manifest: Manifest,
  localChecks: readonly HealthCheck[],
  mostBoots: number = manifest.trial.maxBoots,
): TrialPlan {
  const { soakMs, deadlineMs, control } = manifest.trial;
  const maxBoots = Math.min(manifest.trial.maxBoots, mostBoots);
  const checks = checksOf(manifest, localChecks).map((check) => ({
    name: check.name,
    required: check.required,
    timeoutMs: check.timeoutMs,
    intervalMs: check.intervalMs,
    successesNeeded: check.successesNeeded,
    failuresAllowed: check.failuresAllowed,
    baseline: check.baseline,
    startAfterMs: check.startAfterMs,
  }));
  const oneWay = manifest.trial.oneWay === true;
  return { soakMs, deadlineMs, maxBoots, control, oneWay, checks };
}

/** The table of executors over the ports of a host. */
export function createExecutors(ports: HostPorts): Omit<Executors, 'check-store'> {
  const { slots, installer, bootControl, activator, trust, store } = ports;
  const offers = offerBook(ports);
  const done = async (work: Promise<void>): Promise<object> => {
    await work;
    return {};
  };
  const progress = (now: Progress): void => ports.onProgress?.(now);
  return {
    async resolve({ assignment }) {
      const { id, group, class: hostClass } = ports.host;
      const context = { host: id, group, class: hostClass, nowMs: ports.clock.wallMs() };
      const offer = await trust.resolve(assignment, context);
      if (offer === null) return { offer: null };
      const sources = usableSources(offer.sources, ports.controlUrls);
      return { offer: await offers.keep({ ...offer, sources }) };
    },
    async 'resolve-file'({ path }) {
      const context = { class: ports.host.class, nowMs: ports.clock.wallMs() };
      return { offer: await offers.keep(await trust.resolveFile(path, context)) };
    },
    'resolve-held': ({ artifactId }) => offers.held(artifactId),
    observe: async () => ({ facts: await observeHost(ports) }),
    async preflight({ artifactId, held }) {
      const slot = await slots.targetFor(artifactId);
      if (!held) {
        const offer = await offers.of(artifactId, []);
        await requireCompatible(ports, offer.manifest);
        await slots.preflight(offer, slot);
      }
      return { slot, identity: await ports.identityOf(slot) };
    },
    'begin-slot': async ({ artifactId, slot }) =>
      done(slots.begin(await offers.of(artifactId, []), slot)),
    async download({ artifactId, slot, sources }, signal) {
      // Kept by the state, perhaps by an older agent: what is no address is left out, not crashed on.
      const whole = sources.filter((source) => URL.canParse(source));
      const offer = await offers.of(artifactId, whole);
      const result = await installer.download(offer, slot, progress, signal);
      return { ...result, failedSources: result.failedSources.length };
    },
    verify: async ({ artifactId, slot }, signal) =>
      done(installer.verify(await offers.of(artifactId, []), slot, progress, signal)),
    window: async () => ports.windows.at(ports.clock.wallMs()),
    drain: (_effect, signal) => done(ports.hooks.drain(signal)),
    undrain: () => done(ports.hooks.undrain()),
    probe: (effect) => probe(ports, offers, effect),
    'write-ticket': ({ ticket }) => done(store.writeTicket(ticket)),
    'remove-ticket': () => done(removeTicket(ports)),
    arm: ({ slot, tries }) => done(bootControl.arm(slot, tries)),
    disarm: ({ slot }) => done(bootControl.disarm(slot)),
    switch: async ({ slot, force }) => ({ outcome: await bootControl.switchTo(slot, { force }) }),
    async activate({ slot, artifactId }) {
      if (slot === null) return done(activator.deactivate());
      must(artifactId !== null, 'what is started from a slot has a name');
      const { manifest } = await offers.of(artifactId, []);
      return done(activator.activate(slot, artifactId, manifest));
    },
    commit: ({ slot }) => done(bootControl.commit(slot)),
    'roll-back': async ({ slot, bad, force }) => ({
      outcome: await bootControl.rollBackTo(slot, bad, { force }),
    }),
    deny: ({ entry }) => done(store.deny(entry)),
    allow: ({ artifactId }) => done(store.allow(artifactId)),
    'mark-slot': ({ slot, status, reason }) => done(slots.mark(slot, status, reason)),
    'discard-slot': ({ slot }) => done(slots.discard(slot)),
    prune: ({ keep }) => done(prune(ports, keep)),
    'raise-floor': ({ class: offerClass, release }) => done(trust.raiseFloor(offerClass, release)),
  };
}

/** Longest list that is kept: the schema of the state allows no more. */
const MAX_SOURCES = 16;

/**
 * What control named as sources, as whole addresses. Integrity does not depend on them, but control may not make this host
 * read its own files, and a malformed one is no reason to stop.
 */
export function usableSources(
  sources: readonly string[],
  controlUrls: readonly string[],
): readonly string[] {
  const whole = sources.flatMap((source) =>
    source.startsWith('/') ? controlUrls.map((url) => `${url}${source}`) : [source],
  );
  const usable = whole.filter((source) => {
    const protocol = URL.parse(source)?.protocol;
    return protocol === 'http:' || protocol === 'https:';
  });
  if (usable.length > 0) return usable.slice(0, MAX_SOURCES);
  throw new Problem('E_SCHEMA', `no usable source among ${JSON.stringify(sources).slice(0, 256)}`);
}

interface OfferBook {
  /** Keeps the manifest durably and answers with what the machine keeps. */
  keep(offer: Offer): Promise<OfferRef>;
  /** The offer of an artifact whose manifest is kept; E_STATE when it is not. */
  of(version: VersionId, sources: readonly string[]): Promise<Offer>;
  held(version: VersionId): Promise<OperationResults['resolve-held']>;
}

function offerBook(ports: HostPorts): OfferBook {
  const { store, localChecks, configs } = ports;
  const read = async (
    version: VersionId,
  ): Promise<Pick<Offer, 'artifactId' | 'configId' | 'manifest' | 'manifestBytes'>> => {
    const artifactId = artifactOf(version);
    const manifestBytes = await store.manifest(artifactId);
    if (manifestBytes === null) {
      throw new Problem('E_STATE', `the manifest of ${artifactId} is not kept on this host`);
    }
    // The bytes have the signed digest, so they were valid when they were kept; a newer agent may know more kinds.
    const parsed = v.safeParse(manifestSchema, JSON.parse(new TextDecoder().decode(manifestBytes)));
    if (!parsed.success) {
      const issue = parsed.issues[0].message;
      throw new Problem(
        'E_AGENT_TOO_OLD',
        `the manifest of ${artifactId} is not understood: ${issue}`,
      );
    }
    const configId = configOf(version);
    const named = configId === null ? { artifactId } : { artifactId, configId };
    return { ...named, manifest: parsed.output, manifestBytes };
  };
  const refOf = (version: VersionId, offer: Omit<Offer, 'manifestBytes'>): OfferRef => ({
    artifactId: version,
    class: offer.manifest.class,
    version: offer.manifest.version,
    release: offer.manifest.release,
    rolloutId: offer.rolloutId,
    seq: offer.seq,
    retryGeneration: offer.retryGeneration,
    sources: offer.sources,
    plan: planOf(offer.manifest, localChecks, ports.maxBoots),
  });
  const unnumbered = { rolloutId: null, seq: 0, retryGeneration: 0 };
  return {
    async keep(offer) {
      const { artifactId, config } = offer;
      const version = versionIdOf(artifactId, offer.configId);
      await store.keepManifest(artifactId, offer.manifestBytes);
      if (config !== undefined) {
        if (configs === undefined)
          throw new Problem('E_CONFIG', 'this host is not set up to take config sets');
        await configs.keep(version, config);
      }
      return refOf(version, offer);
    },
    of: async (version, sources) => ({ ...(await read(version)), sources, ...unnumbered }),
    async held(version) {
      const kept = await read(version);
      return { offer: refOf(version, { ...kept, sources: [], ...unnumbered }) };
    },
  };
}

async function probe(
  ports: HostPorts,
  offers: OfferBook,
  effect: Operations['probe'],
): Promise<OperationResults['probe']> {
  // A version without checks, or one that soaks, is judged by its restarts all the same (F47).
  if (effect.checks.length === 0) return { results: [], ...restartsOf(ports) };
  const { manifest } = await offers.of(effect.artifactId, []);
  const checks = checksOf(manifest, ports.localChecks);
  const missing = (name: string): CheckOutcome => ({
    name,
    ok: false,
    durationMs: 0,
    detail: 'there is no check of this name any more',
  });
  const results = effect.checks.map((name) => {
    const check = checks.find((one) => one.name === name);
    return check === undefined ? Promise.resolve(missing(name)) : ports.probes.run(check);
  });
  return { results: await Promise.all(results), ...restartsOf(ports) };
}

function restartsOf({ restarts }: HostPorts): { readonly restarts?: number } {
  return restarts === undefined ? {} : { restarts: restarts() };
}

/** Class, architecture, oldest agent, stepping stone, one-way: refused before anything is written. */
async function requireCompatible(ports: HostPorts, manifest: Manifest): Promise<void> {
  if (manifest.trial.oneWay === true && !ports.acceptOneWay) {
    throw new Problem(
      'E_NOT_ALLOWED_NOW',
      `version ${manifest.version} cannot be taken back; this host takes such a one only with slots.accept_one_way`,
      { artifact: manifest.version },
    );
  }
  const { live, slots } = await ports.slots.observe();
  const runningRelease = slots.find((record) => record.slot === live)?.release ?? null;
  checkCompatibility(manifest, { ...ports.traits, class: ports.host.class, runningRelease });
}

/** Slots first: a manifest without its slot is only rubbish, a slot without its manifest could not be started. */
async function prune(ports: HostPorts, keep: readonly SlotId[]): Promise<void> {
  await ports.slots.prune(keep);
  const { slots } = await ports.slots.observe();
  const versions = slots.flatMap((record) => record.artifactId ?? []);
  await ports.store.pruneManifests(versions.map((version) => artifactOf(version)));
  await ports.configs?.prune(versions.filter((version) => configOf(version) !== null));
}

/** With the ticket goes what only the other way of this trial needed: the secrets of what does not run (config-sets.md). */
async function removeTicket(ports: HostPorts): Promise<void> {
  await ports.store.removeTicket();
  if (ports.configs === undefined) return;
  const { liveArtifact } = await ports.slots.observe();
  await ports.configs.wipeAllBut(liveArtifact);
}
