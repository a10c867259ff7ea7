/** A group in memory, moved by the real core: the planner, its decisions, reports. For scenarios, properties and the model. */
import * as v from 'valibot';
import { applied, changeOf, type World } from '#/control/core/apply.ts';
import type { Group, Halt, Host, Pin, Release, Rollout, Scene } from '#/control/core/model.ts';
import { openAttempt } from '#/control/core/model.ts';
import { type Decision, plan } from '#/control/core/plan.ts';
import { applyReport } from '#/control/core/report.ts';
import type { AttemptPhase, ReportDocument, ReportEvent } from '#/protocol/documents.ts';
import { pollPolicy, rolloutPolicy } from '#/protocol/group.ts';
import type { ArtifactId, GroupName, HostId, RolloutId } from '#/protocol/ids.ts';
import { parseSelector, selects } from '#/protocol/selector.ts';

export const GROUP = 'web' as GroupName;
export const hostIdOf = (i: number): HostId => `h-${i.toString(16).padStart(32, '0')}` as HostId;
export const artifactOf = (release: number): ArtifactId =>
  release.toString(16).padStart(64, '0') as ArtifactId;
export const rolloutIdOf = (n: number): RolloutId =>
  `r-${n.toString(16).padStart(16, '0')}` as RolloutId;
const START_MS = 1_000_000_000_000;

export function blankHost(i: number, more: Partial<Host> = {}): Host {
  return {
    id: hostIdOf(i),
    group: GROUP,
    labels: {},
    class: 'web',
    arch: 'amd64',
    keyId: '',
    signKey: '',
    sealKey: '',
    statement: '',
    enrolledAtMs: START_MS,
    agentVersion: '0.1.0',
    facts: {},
    generation: 1,
    rollbackGeneration: 0,
    hold: null,
    quarantine: null,
    pin: null,
    retries: {},
    forgiven: {},
    seq: 0,
    bootId: null,
    pastBoots: [],
    rewinds: 0,
    running: null,
    previous: null,
    state: 'idle',
    healthy: null,
    why: '',
    denied: [],
    observedEpoch: 1,
    lastSeenAtMs: START_MS,
    attempts: [],
    ...more,
  };
}

export function blankRelease(release: number): Release {
  return {
    artifactId: artifactOf(release),
    name: 'app',
    class: 'web',
    arch: 'any',
    version: `v${release}`,
    release,
    sizeBytes: 1,
    bundleBytes: null,
    revoked: null,
    sources: ['https://mirror.invalid/x'],
    signers: [],
    importedAtMs: START_MS,
    importedBy: 'test',
  };
}

export function blankGroup(policy: v.InferInput<typeof rolloutPolicy>): Group {
  return {
    name: GROUP,
    selector: null,
    priority: 0,
    description: '',
    rollout: v.parse(rolloutPolicy, policy),
    poll: v.parse(pollPolicy, {}),
    revision: 1,
    generation: 0,
    createdAtMs: START_MS,
    pin: null,
    pinSeq: 0,
    current: null,
  };
}

export interface SmallFleetOptions {
  readonly hosts: number;
  readonly policy: v.InferInput<typeof rolloutPolicy>;
  /** Called with each decision. */
  readonly onDecision?: (decision: Decision) => void;
  /** The planner under test; a planted bug goes here. */
  readonly plan?: (scene: Scene) => readonly Decision[];
}

/** Hosts stay online unless a test says otherwise: every step renews their last-seen time. */
export class SmallFleet {
  now = START_MS;
  group: Group;
  rollout: Rollout | null = null;
  hosts = new Map<string, Host>();
  releases = new Map<ArtifactId, Release>();
  fleetHalt: Halt | null = null;
  groupHalt: Halt | null = null;
  readonly offline = new Set<string>();
  readonly decisions: Decision[] = [];
  readonly #options: SmallFleetOptions;
  #rollouts = 0;
  epoch = 1;
  isRestored = false;

  constructor(options: SmallFleetOptions) {
    this.#options = options;
    this.group = blankGroup(options.policy);
    for (let i = 0; i < options.hosts; i += 1) this.hosts.set(hostIdOf(i), blankHost(i));
    for (let release = 1; release <= 4; release += 1)
      this.releases.set(artifactOf(release), blankRelease(release));
  }

  scene(): Scene {
    const hosts = [...this.hosts.values()].map((host) =>
      this.offline.has(host.id) ? host : { ...host, lastSeenAtMs: this.now },
    );
    return {
      now: this.now,
      epoch: this.epoch,
      isRestored: this.isRestored,
      fleetHalt: this.fleetHalt,
      groupHalt: this.groupHalt,
      group: this.group,
      rollout: this.rollout,
      hosts,
      offlineAfterMs: 60_000,
      releases: this.releases,
      // Hosts in the order of their number.
      bucket: (_, host) => Number.parseInt(host.slice(-4), 16) / 1000,
      isCanary: (rollout, host) =>
        selects(parseSelector(rollout.policy.canarySelector), host.labels),
    };
  }

  pin(release: number): Rollout {
    const artifactId = artifactOf(release);
    this.#rollouts += 1;
    const pin: Pin = {
      group: GROUP,
      host: null,
      artifactId,
      seq: this.group.pinSeq + 1,
      reason: 'test',
      ticket: null,
      actor: 'test',
      createdAtMs: this.now,
      expiresAtMs: null,
      epoch: this.epoch,
    };
    this.group = { ...this.group, pin, pinSeq: pin.seq };
    const policy = this.group.rollout;
    const blank = {
      state: 'pending',
      threshold: null,
      canaries: [],
      openedAtMs: null,
      passedAtMs: null,
    } as const;
    const names = [
      ...(policy.canaryCount > 0 ? [{ name: 'canary', percent: null }] : []),
      ...policy.wavePercents.map((percent) => ({ name: `${percent} %`, percent })),
    ];
    this.rollout = {
      id: rolloutIdOf(this.#rollouts),
      group: GROUP,
      artifactId,
      previous: this.group.current,
      pinSeq: pin.seq,
      state: 'running',
      reason: 'test',
      words: 'started',
      actor: 'test',
      policy,
      stages: names.map((stage, index) => ({ index, ...stage, ...blank })),
      acceptedAtMs: 0,
      isReverting: false,
      startedAtMs: this.now,
      endedAtMs: null,
    };
    return this.rollout;
  }

  /** Plans until nothing is left to decide; gives what was decided. */
  settle(): readonly Decision[] {
    const made: Decision[] = [];
    const decide = this.#options.plan ?? plan;
    for (let round = 0; round < 1000; round += 1) {
      const decisions = decide(this.scene());
      if (decisions.length === 0) return made;
      for (const decision of decisions) {
        this.apply(decision);
        made.push(decision);
      }
    }
    throw new Error('the planner never comes to rest');
  }

  apply(decision: Decision): void {
    const world: World = { group: this.group, rollout: this.rollout, hosts: this.hosts };
    const next = applied(world, changeOf(world, decision, this.now));
    this.group = next.group;
    this.rollout = next.rollout;
    this.hosts = new Map(next.hosts);
    this.decisions.push(decision);
    this.#options.onDecision?.(decision);
  }

  host(i: number): Host {
    const host = this.hosts.get(hostIdOf(i));
    if (host === undefined) throw new Error(`no host ${i}`);
    return host;
  }

  put(host: Host): void {
    this.hosts.set(host.id, host);
  }

  offered(): readonly number[] {
    return [...this.hosts.values()].flatMap((host, i) => (openAttempt(host) === null ? [] : [i]));
  }

  /** A report of one event about the open attempt of the host. */
  report(i: number, phase: AttemptPhase, code: string | null = null): void {
    const host = this.host(i);
    const attempt = openAttempt(host);
    if (attempt === null) throw new Error(`host ${i} is in no attempt`);
    const id = `${host.seq + 1}`.padStart(32, '0');
    const event: ReportEvent = {
      id,
      attempt: attempt.agentAttempt ?? `${i}`.padStart(16, 'a') + `${attempt.n}`.padStart(16, '0'),
      rolloutId: attempt.rolloutId,
      artifactId: attempt.artifactId,
      phase,
      code,
      message: phase,
      at: this.now,
      evidence: {},
    };
    const running = phase === 'confirmed' ? attempt.artifactId : host.running;
    const document: ReportDocument = {
      schema: 'switchback.report/1',
      host: host.id,
      seq: host.seq + 1,
      bootId: 'b1',
      running,
      previous: null,
      state: 'idle',
      why: '',
      healthy: true,
      agentVersion: '0.1.0',
      events: [event],
      denied:
        phase === 'rolled-back'
          ? [{ artifactId: attempt.artifactId, code: code ?? 'E_UNHEALTHY' }]
          : [...host.denied],
    };
    this.put(applyReport(host, document, [event], 'new', this.epoch, this.now).host);
  }
}
