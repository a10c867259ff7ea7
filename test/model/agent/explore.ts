/** Breadth-first exploration: the shortest way to every state, and to every violation. */
import type { State } from '#/agent/core/state.ts';
import { operationOf } from '#/agent/core/operation.ts';
import { actions, benign, isAtRest } from './actions.ts';
import {
  type Agent,
  bootId,
  firstWorld,
  type Kind,
  type Ledger,
  type Machine,
  type Nature,
  V1,
  V2,
  Violation,
  type World,
} from './world.ts';

export interface Scenario {
  readonly kind: Kind;
  readonly nature: Nature;
  readonly disturbances: number;
}

export interface Counterexample {
  readonly invariant: string;
  readonly message: string;
  readonly trace: readonly string[];
}

export interface Exploration {
  readonly scenario: Scenario;
  readonly states: number;
  readonly edges: number;
  readonly rests: number;
  /** Edges between the machine's states, for the picture. */
  readonly moves: ReadonlySet<string>;
  readonly visited: ReadonlySet<State['at']>;
  /** The first world in which each state has its operation under way, or none to run. */
  readonly samples: ReadonlyMap<State['at'], World>;
  readonly counterexample: Counterexample | null;
}

/** A host comes to rest within so many steps and boots once nothing disturbs it any more (liveness). */
export const LIVENESS = { steps: 400, boots: 12 } as const;

const runTimes: ReadonlySet<string> = new Set([
  'deadlineRunMs',
  'dueRunMs',
  'nextRunMs',
  'sinceRunMs',
  'soakUntilRunMs',
  'rebootByRunMs',
  'notBeforeRunMs',
]);
const ignored: ReadonlySet<string> = new Set([
  'schema',
  'opCounter',
  'atWallMs',
  'evidence',
  'message',
  'detail',
  'poll',
  'plan',
  'checks',
  'clock',
  'run',
  'runMs',
  'sources',
  'durationMs',
  // One version, one offer: all of it follows from the artifact id.
  'class',
  'version',
  'release',
  'rolloutId',
  'seq',
  'targetIdentity',
  'identity',
]);

/**
 * Keys of worlds. Two worlds with one key differ in nothing that matters: run times are taken relative to the clock of their
 * state, boots as this one or an earlier one, texts are left out.
 */
export class Keys {
  readonly #numbers = new Map<string, number>();
  readonly #objects = new WeakMap<object, number>();

  of(world: World): string {
    const { agent, disk, ledger, boot } = world;
    const run = (agent?.mem ?? disk.journal)?.run ?? { runMs: 0, bootId: '' };
    const now = { ...run, bootId: bootId(world) };
    return [
      agent === null ? '-' : this.#ofState(agent.mem),
      disk.journal === null ? '-' : this.#ofState(disk.journal),
      this.#ofAgent(agent),
      run.bootId === now.bootId,
      this.#ofTicket(disk.ticket, now),
      this.#ofTicket(ledger.ticket, now),
      this.#ofObject(disk.denied),
      this.#ofObject(disk.outbox),
      this.#ofObject(world.slots),
      this.#ofObject(ledger.ends),
      this.#ofObject(ledger.switches),
      [ledger.withdrawn, ledger.healthyRounds, ledger.journalLost, ledger.isVouched].join(','),
      [disk.floor, disk.broken, world.live?.[0], world.active?.[0], boot.defaultSlot?.[0]].join(
        ',',
      ),
      [boot.trial?.slot, boot.trial?.triesLeft, world.rebootAsked, world.isRebootIgnored].join(','),
      [world.control, world.rollbackGeneration, world.isEnvironmentBad, world.attempts].join(','),
      world.disturbancesLeft,
    ].join('|');
  }

  #ofAgent(agent: World['agent']): string {
    if (agent === null) return '-';
    const { running, polling, wasApplied, reports } = agent;
    const effect = running === null ? '' : `${running.do}${String(operationIsStale(agent))}`;
    return [effect, polling, wasApplied, ...reports.map((report) => report.key)].join(',');
  }

  #ofTicket(
    ticket: Ledger['ticket'] | World['disk']['ticket'],
    now: { readonly runMs: number; readonly bootId: string },
  ): string {
    if (ticket === null || ticket === 'damaged') return String(ticket);
    const { deadlineRunMs: _deadline, ...rest } = ticket;
    const left = Math.max(ticket.deadlineRunMs - now.runMs, -1);
    const last = 'lastBootId' in ticket ? ticket.lastBootId === now.bootId : '';
    return `${this.#ofObject(rest, ticket)}:${left}:${ticket.armBootId === now.bootId}:${last}`;
  }

  /** For values without run times and boots of their own. */
  #ofObject(value: object, owner: object = value): number {
    const known = this.#objects.get(owner);
    if (known !== undefined) return known;
    const number = this.#number(canon(value, '', { runMs: 0, bootId: '' }));
    this.#objects.set(owner, number);
    return number;
  }

  #ofState(state: State): number {
    const known = this.#objects.get(state);
    if (known !== undefined) return known;
    const number = this.#number(canon({ ...state, op: opOf(state) }, '', state.run));
    this.#objects.set(state, number);
    return number;
  }

  #number(text: string): number {
    const known = this.#numbers.get(text);
    if (known !== undefined) return known;
    this.#numbers.set(text, this.#numbers.size);
    return this.#numbers.size - 1;
  }
}

/** Only a wrong machine lets an operation run that is not the one of its state. */
function operationIsStale({ mem, running }: Agent): boolean {
  return operationOf(mem)?.do !== running?.do;
}

function opOf({ op }: State): object | null {
  return op === null ? null : { tries: op.tries, dueRunMs: op.dueRunMs };
}

function canon(
  value: unknown,
  name: string,
  run: { readonly runMs: number; readonly bootId: string },
): string {
  if (typeof value === 'number') {
    return runTimes.has(name) ? String(Math.max(value - run.runMs, -1)) : String(value);
  }
  if (typeof value === 'string') {
    if (name.endsWith('ootId')) return value === run.bootId ? '=' : '<';
    return value.length > 32 && value.length <= 64 ? (value[0] ?? '') : value;
  }
  if (typeof value !== 'object' || value === null) return String(value);
  let text = '{';
  for (const key in value) {
    if (ignored.has(key)) continue;
    text += `${key}:${canon((value as Record<string, unknown>)[key], key, run)},`;
  }
  return `${text}}`;
}

/** What a host at rest has to look like. */
function checkRest(world: World): void {
  const { mem } = world.agent ?? {};
  if (mem === undefined) return;
  const { live, disk } = world;
  const record = live === null ? undefined : world.slots[live];
  for (let attempt = 1; attempt <= world.attempts; attempt += 1) {
    const id = attempt.toString(16).padStart(32, '0');
    const end = world.ledger.ends[id];
    // What only the lost journal knew cannot be told any more.
    if (world.ledger.journalLost) continue;
    if (end === undefined) {
      throw new Violation('I5', `attempt ${attempt} has no end`);
    }
    if (disk.outbox[`${id}.end`] !== end) {
      throw new Violation('I5', `the end of attempt ${attempt}, ${end}, is not in the outbox`);
    }
  }
  if (mem.at === 'needs-attention') return;
  if (live === null && world.kind === 'first-install') {
    if (world.active !== null)
      throw new Violation('I9', `nothing is live and ${world.active} runs`);
    return;
  }
  if (record === undefined || record.status !== 'good' || !record.complete) {
    throw new Violation('I9', `at rest on slot ${live}, which is ${record?.status ?? 'missing'}`);
  }
  const isJudged = !world.ledger.isVouched && !world.isEnvironmentBad;
  if (record.artifact === V2 && world.nature !== 'good' && isJudged) {
    throw new Violation('I14', 'at rest on a version that is not healthy');
  }
  if (mem.known.previous === mem.known.artifactId) {
    throw new Violation('I9', 'at rest with what it runs as what it would go back to');
  }
  if (world.active !== record.artifact) {
    throw new Violation('I9', `at rest, slot ${live} is live and ${world.active} runs`);
  }
  if (record.artifact !== V1 && record.artifact !== V2) {
    throw new Violation('I9', 'at rest on a version from nowhere');
  }
}

/** Follows the undisturbed way to rest; the keys on it are remembered, so each is walked once. */
function checkLiveness(world: World, machine: Machine, keys: Keys, settled: Set<string>): void {
  const path: string[] = [];
  let now = world;
  for (let steps = 0; steps < LIVENESS.steps; steps += 1) {
    const key = keys.of(now);
    if (settled.has(key)) break;
    path.push(key);
    if (isAtRest(now)) {
      checkRest(now);
      break;
    }
    const action = benign(now, machine);
    if (action === null) throw new Violation('I9', `stuck in ${now.agent?.mem.at ?? 'no agent'}`);
    now = action.next;
    if (now.bootNumber - world.bootNumber > LIVENESS.boots) {
      throw new Violation('I9', `no rest after ${LIVENESS.boots} boots`);
    }
    if (steps === LIVENESS.steps - 1) {
      throw new Violation('I9', `no rest after ${LIVENESS.steps} steps, in ${now.agent?.mem.at}`);
    }
  }
  for (const key of path) settled.add(key);
}

interface Node {
  readonly world: World;
  readonly parent: number;
  readonly name: string;
}

/** Explores one scenario to its end, or to the first violation. */
export function explore(scenario: Scenario, machine: Machine, maxStates = 2_000_000): Exploration {
  const { kind, nature, disturbances } = scenario;
  const nodes: Node[] = [
    { world: firstWorld(kind, nature, disturbances), parent: -1, name: 'start' },
  ];
  const keys = new Keys();
  const seen = new Set<string>([keys.of(firstWorld(kind, nature, disturbances))]);
  const settled = new Set<string>();
  const moves = new Set<string>();
  const visited = new Set<State['at']>();
  const samples = new Map<State['at'], World>();
  let edges = 0;
  let rests = 0;
  const result = (counterexample: Counterexample | null): Exploration => ({
    scenario,
    states: nodes.length,
    edges,
    rests,
    moves,
    visited,
    samples,
    counterexample,
  });
  for (let index = 0; index < nodes.length; index += 1) {
    const node = nodes[index];
    if (node === undefined) break;
    const { agent } = node.world;
    if (agent !== null && !agent.mem.modes.observeOnly) {
      const isBetter = agent.running !== null && samples.get(agent.mem.at)?.agent?.running === null;
      if (isBetter || !samples.has(agent.mem.at)) samples.set(agent.mem.at, node.world);
    }
    let name = '(liveness)';
    try {
      if (isAtRest(node.world)) {
        rests += 1;
        checkRest(node.world);
      }
      checkLiveness(node.world, machine, keys, settled);
      for (const action of actions(node.world, machine)) {
        name = action.name;
        edges += 1;
        const from = (node.world.agent?.mem ?? node.world.disk.journal)?.at;
        const to = action.next.agent?.mem.at;
        if (to !== undefined) visited.add(to);
        if (from !== undefined && to !== undefined && from !== to) moves.add(`${from}>${to}`);
        const key = keys.of(action.next);
        if (seen.has(key)) continue;
        seen.add(key);
        nodes.push({ world: action.next, parent: index, name: action.name });
      }
    } catch (error) {
      if (!(error instanceof Violation)) {
        const trace = [...traceOf(nodes, index), name].join('\n  ');
        throw new Error(`the explorer broke after\n  ${trace}`, { cause: error });
      }
      const { invariant, message } = error;
      const trace = [...traceOf(nodes, index), `${name} -> ${stateName(node.world)}`];
      return result({ invariant, message, trace });
    }
    if (nodes.length > maxStates) throw new Error(`more than ${maxStates} states`);
  }
  return result(null);
}

function traceOf(nodes: readonly Node[], last: number): readonly string[] {
  const trace: string[] = [];
  for (let index = last; index >= 0; ) {
    const node = nodes[index];
    if (node === undefined) break;
    trace.unshift(`${node.name} -> ${stateName(node.world)}`);
    index = node.parent;
  }
  return trace;
}

function stateName(world: World): string {
  const { mem } = world.agent ?? {};
  if (mem === undefined) return 'agent dead';
  return 'step' in mem ? `${mem.at}.${mem.step}` : mem.at;
}
