/**
 * Every history of a small fleet: reports that are late, reordered or repeated, a planner that has not run yet (control died
 * between a report and its consequence), halts that come and go. The core under test is the real one; the agents and the network
 * are as simple as they can be.
 */
import { applied, changeOf } from '#/control/core/apply.ts';
import { type Host, openAttempt, type Rollout, type Scene } from '#/control/core/model.ts';
import { type Decision, plan } from '#/control/core/plan.ts';
import { applyReport, sequenceVerdict } from '#/control/core/report.ts';
import type { AttemptPhase, ReportDocument, ReportEvent } from '#/protocol/documents.ts';
import type { VersionId } from '#/protocol/ids.ts';
import { hostIdOf, SmallFleet } from './small-fleet.ts';

const NOW_MS = 1_000_000_000_000;

interface Message {
  readonly document: ReportDocument;
}

interface Agent {
  /** What the machine of the host is at. */
  readonly at: 'idle' | 'accepted' | 'switched';
  readonly lease: number;
  readonly seq: number;
  readonly running: VersionId | null;
  /** Not acknowledged yet. */
  readonly outbox: readonly Message[];
  /** What really happened, to compare with what control believes. */
  readonly ended: readonly string[];
}

export interface Model {
  readonly rollout: Rollout | null;
  readonly hosts: readonly Host[];
  readonly isHalted: boolean;
  readonly agents: readonly Agent[];
  readonly seenReports: readonly string[];
  readonly seenEvents: readonly string[];
  /** What is left of each trouble, so that the histories end. */
  readonly left: { readonly lostAcks: number; readonly halts: number; readonly failures: number };
}

export interface Faults {
  readonly plan?: (scene: Scene) => readonly Decision[];
  /** Takes late reports for new ones. */
  readonly forgetsOrder?: boolean;
}

export interface Settings {
  readonly hosts: number;
  readonly lostAcks: number;
  readonly halts: number;
  readonly failures: number;
  readonly policy: Record<string, unknown>;
}

export function firstModel(settings: Settings): Model {
  const fleet = new SmallFleet({ hosts: settings.hosts, policy: settings.policy });
  fleet.pin(1);
  const { lostAcks, halts, failures } = settings;
  return {
    rollout: fleet.rollout,
    hosts: [...fleet.hosts.values()],
    isHalted: false,
    agents: Array.from({ length: settings.hosts }, () => ({
      at: 'idle' as const,
      lease: 0,
      seq: 0,
      running: null,
      outbox: [],
      ended: [],
    })),
    seenReports: [],
    seenEvents: [],
    left: { lostAcks, halts, failures },
  };
}

function fleetOf(model: Model, settings: Settings): SmallFleet {
  const fleet = new SmallFleet({ hosts: settings.hosts, policy: settings.policy });
  fleet.pin(1);
  fleet.rollout = model.rollout;
  fleet.hosts = new Map(model.hosts.map((host) => [host.id, host]));
  if (model.rollout?.state === 'done')
    fleet.group = { ...fleet.group, current: model.rollout.artifactId };
  if (model.isHalted) fleet.fleetHalt = { scope: 'fleet', reason: 'r', actor: 'a', atMs: 0 };
  return fleet;
}

export interface Edge {
  readonly name: string;
  readonly to: Model;
  /** Which promise it broke. */
  readonly broken: string | null;
}

function withAgent(model: Model, i: number, agent: Agent): Model {
  return { ...model, agents: model.agents.map((each, j) => (i === j ? agent : each)) };
}

function reportOf(
  i: number,
  agent: Agent,
  artifactId: VersionId,
  rollout: Rollout | null,
  phase: AttemptPhase,
): Message {
  const seq = agent.seq + 1;
  const event: ReportEvent = {
    id: `${i}`.padStart(16, '0') + `${seq}`.padStart(16, '0'),
    attempt: `${i}`.padStart(16, 'a') + `${agent.lease}`.padStart(16, '0'),
    rolloutId: rollout?.id ?? null,
    artifactId,
    phase,
    code: phase === 'rolled-back' ? 'E_UNHEALTHY' : null,
    message: phase,
    at: 0,
    evidence: {},
  };
  return {
    document: {
      schema: 'switchback.report/1',
      host: hostIdOf(i),
      seq,
      bootId: 'b',
      running: phase === 'confirmed' ? artifactId : agent.running,
      previous: null,
      state: phase,
      why: '',
      healthy: true,
      agentVersion: '0',
      events: [event],
      denied: [],
    },
  };
}

/** The host acts on what control holds for it: it polls, so a halt or a withdrawal is seen before the switch. */
function agentEdges(model: Model, i: number): Edge[] {
  const agent = model.agents[i];
  const host = model.hosts[i];
  if (agent === undefined || host === undefined) return [];
  const lease = openAttempt(host);
  const say = (next: Agent, artifactId: VersionId, phase: AttemptPhase): Model => {
    const message = reportOf(i, next, artifactId, model.rollout, phase);
    return withAgent(model, i, {
      ...next,
      seq: message.document.seq,
      running: message.document.running,
      outbox: [...next.outbox, message],
    });
  };
  switch (agent.at) {
    case 'idle': {
      if (lease === null || lease.n === agent.lease || model.isHalted) return [];
      return [
        {
          name: `host ${i} accepts`,
          to: say({ ...agent, at: 'accepted', lease: lease.n }, lease.artifactId, 'accepted'),
          broken: null,
        },
      ];
    }
    case 'accepted': {
      const artifactId = host.attempts.find((a) => a.n === agent.lease)?.artifactId;
      if (artifactId === undefined || model.isHalted) return [];
      return [
        {
          name: `host ${i} switches`,
          to: say({ ...agent, at: 'switched' }, artifactId, 'switching'),
          broken: null,
        },
      ];
    }
    case 'switched': {
      const artifactId = host.attempts.find((a) => a.n === agent.lease)?.artifactId;
      if (artifactId === undefined) return [];
      const end = (phase: 'confirmed' | 'rolled-back'): Model =>
        say(
          { ...agent, at: 'idle', ended: [...agent.ended, `${agent.lease}/${phase}`] },
          artifactId,
          phase,
        );
      const good = { name: `host ${i} confirms`, to: end('confirmed'), broken: null };
      if (model.left.failures === 0) return [good];
      const left = { ...model.left, failures: model.left.failures - 1 };
      return [
        good,
        { name: `host ${i} rolls back`, to: { ...end('rolled-back'), left }, broken: null },
      ];
    }
  }
}

/** Control receives a report, as control/engine/reports.ts does. */
function receive(
  model: Model,
  i: number,
  message: Message,
  isAcked: boolean,
  faults: Faults,
): Edge {
  const { document } = message;
  const agent = model.agents[i] as Agent;
  const host = model.hosts[i] as Host;
  const key = `${i}/${document.seq}`;
  const isKnown = model.seenReports.includes(key);
  const verdict = sequenceVerdict(host, document, key, isKnown ? key : null);
  const outbox = isAcked ? agent.outbox.filter((m) => m !== message) : agent.outbox;
  const left = isAcked ? model.left : { ...model.left, lostAcks: model.left.lostAcks - 1 };
  const name = `report ${document.seq} of host ${i} (${document.state})${isAcked ? '' : ', its ack is lost'}`;
  const base = { ...withAgent(model, i, { ...agent, outbox }), left };
  if (verdict === 'repeated') return { name: `${name} again`, to: base, broken: null };
  if (verdict !== 'new' && verdict !== 'late')
    return { name, to: base, broken: `M5 an honest host is taken for a ${verdict} one` };
  const fresh = document.events.filter((event) => !model.seenEvents.includes(event.id));
  const order = faults.forgetsOrder === true ? 'new' : verdict;
  const change = applyReport(host, document, fresh, order, 1, NOW_MS);
  const again = change.ended.filter((a) =>
    host.attempts.some((b) => b.n === a.n && b.outcome !== 'open'),
  );
  const isBack = change.host.seq < host.seq;
  return {
    name,
    to: {
      ...base,
      hosts: base.hosts.map((h, j) => (j === i ? change.host : h)),
      seenReports: [...base.seenReports, key].sort(),
      seenEvents: [...base.seenEvents, ...fresh.map((e) => e.id)].sort(),
    },
    broken:
      again.length > 0
        ? 'M3 an attempt ended twice'
        : isBack
          ? 'M4 a late report brought an older state back'
          : null,
  };
}

function decisionBreaks(fleet: SmallFleet, decision: Decision): string | null {
  if (decision.kind === 'offer') {
    if (fleet.fleetHalt !== null) return 'M1 an offer in a halt';
    const host = fleet.hosts.get(decision.host);
    if (host === undefined || openAttempt(host) !== null) return 'M2 two offers for one lease';
    if (host.attempts.some((a) => a.n >= decision.n)) return 'M2 a lease number was used twice';
  }
  if (decision.kind === 'open-stage') {
    const stages = fleet.rollout?.stages ?? [];
    if (fleet.fleetHalt !== null) return 'M1 a stage opened in a halt';
    if (stages.some((s) => s.index < decision.stage && s.state !== 'passed'))
      return 'M6 a wave opened early';
  }
  if (decision.kind === 'pass-stage') {
    const isProven = [...fleet.hosts.values()].some((h) =>
      h.attempts.some((a) => a.outcome === 'confirmed'),
    );
    if (!isProven) return 'M6 a stage passed without a confirm';
  }
  return null;
}

/** One call of the planner, stored. A crash before it is the absence of this edge. */
function planEdge(model: Model, settings: Settings, faults: Faults): Edge[] {
  const fleet = fleetOf(model, settings);
  const decisions = (faults.plan ?? plan)(fleet.scene());
  if (decisions.length === 0) return [];
  let broken: string | null = null;
  for (const decision of decisions) {
    broken ??= decisionBreaks(fleet, decision);
    if (broken !== null) break;
    const world = { group: fleet.group, rollout: fleet.rollout, hosts: fleet.hosts };
    const next = applied(world, changeOf(world, decision, fleet.now));
    fleet.group = next.group;
    fleet.rollout = next.rollout;
    fleet.hosts = new Map(next.hosts);
  }
  const to = { ...model, rollout: fleet.rollout, hosts: [...fleet.hosts.values()] };
  return [{ name: `plan: ${decisions.map((d) => d.kind).join(', ')}`, to, broken }];
}

/** Everything that can happen next. */
export function edgesOf(model: Model, settings: Settings, faults: Faults): Edge[] {
  const edges: Edge[] = [...planEdge(model, settings, faults)];
  for (const [i, agent] of model.agents.entries()) {
    edges.push(...agentEdges(model, i));
    for (const message of agent.outbox) {
      edges.push(receive(model, i, message, true, faults));
      if (model.left.lostAcks > 0) edges.push(receive(model, i, message, false, faults));
    }
  }
  if (model.isHalted) edges.push({ name: 'lift', to: { ...model, isHalted: false }, broken: null });
  else if (model.left.halts > 0)
    edges.push({
      name: 'halt',
      to: { ...model, isHalted: true, left: { ...model.left, halts: model.left.halts - 1 } },
      broken: null,
    });
  return edges;
}

/** At rest: nobody acts, nothing is on the way. What control believes is what happened. */
function restBreaks(model: Model): string | null {
  for (const [i, agent] of model.agents.entries()) {
    const host = model.hosts[i];
    const believed =
      host?.attempts.filter((a) => a.agentAttempt !== null).map((a) => `${a.n}/${a.phase}`) ?? [];
    const real = agent.ended;
    if (JSON.stringify(believed) !== JSON.stringify(real))
      return `M3 control counted ${believed.join()} where ${real.join()} happened`;
    if (host?.running !== agent.running) return 'M4 control does not know what the host runs';
  }
  if (model.rollout?.state === 'running') return 'M7 the rollout neither ended nor stopped';
  return null;
}

export interface Exploration {
  readonly states: number;
  readonly edges: number;
  readonly ends: number;
  /** Shortest history to a broken promise. */
  readonly broken: { readonly what: string; readonly trace: readonly string[] } | null;
}

/** Breadth first over all histories. */
export function exploreFleet(
  settings: Settings,
  faults: Faults = {},
  maxStates = 2_000_000,
): Exploration {
  const first = firstModel(settings);
  const known = new Map<string, number>([[JSON.stringify(first), 0]]);
  const states: Model[] = [first];
  const parent: { from: number; name: string }[] = [{ from: -1, name: 'start' }];
  let edges = 0;
  let ends = 0;
  const traceOf = (index: number, last: string): string[] => {
    const names = [last];
    for (let at = index; at > 0; at = parent[at]?.from ?? 0) names.push(parent[at]?.name ?? '');
    return names.reverse();
  };
  for (let index = 0; index < states.length; index += 1) {
    if (states.length > maxStates) throw new Error(`more than ${maxStates} states`);
    const model = states[index] as Model;
    const next = edgesOf(model, settings, faults);
    if (next.length === 0) {
      ends += 1;
      const what = restBreaks(model);
      if (what !== null)
        return {
          states: states.length,
          edges,
          ends,
          broken: { what, trace: traceOf(index, 'at rest') },
        };
    }
    for (const edge of next) {
      edges += 1;
      if (edge.broken !== null)
        return {
          states: states.length,
          edges,
          ends,
          broken: { what: edge.broken, trace: traceOf(index, edge.name) },
        };
      const key = JSON.stringify(edge.to);
      if (known.has(key)) continue;
      known.set(key, states.length);
      states.push(edge.to);
      parent.push({ from: index, name: edge.name });
    }
  }
  return { states: states.length, edges, ends, broken: null };
}
