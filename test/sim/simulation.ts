/** One history: a fleet is set up, goes through its faults, gets a calm time, and has to be in order at the end. */
import type { GroupName } from '#/protocol/ids.ts';
import { artifactOf } from '#/protocol/ids.ts';
import { endProblems } from './calm.ts';
import { admit } from './admit.ts';
import { simControl } from './control.ts';
import { useOpenSsl } from './fast-ed25519.ts';
import { applyFault, type Fleet } from './faults.ts';
import { SimHost, type HostOptions } from './host.ts';
import { fineWeather, simNetwork } from './network.ts';
import { controlOracle } from './oracle-control.ts';
import { hostOracle } from './oracle-host.ts';
import { BACKUP_EVERY_MS, groups, planOf, type Fault, type Plan } from './schedule.ts';
import { settle, simTime } from './time.ts';
import { createTrace } from './trace.ts';
import { simVersion } from './versions.ts';

const MINUTE = 60_000;
const START_WALL_MS = Date.UTC(2026, 0, 1);
export const TROUBLE_FROM_MS = 20 * MINUTE;
/** At most; it is over when all was in order at two looks in a row. */
const CALM_MS = 3 * 60 * MINUTE;
const LOOK_EVERY_MS = 15 * MINUTE;
/** Real turns of the event loop that one step may take before control counts as hanging. */
const MAX_TURNS = 20_000;
/** The rollout policy of the simulated groups. */
const POLICY = {
  canaryCount: 1,
  wavePercents: [50, 100],
  maxFailurePercent: 25,
  soakSeconds: 60,
  healthyDeadlineSeconds: 1200,
  stageDeadlineSeconds: 3600,
};

export interface SimulationOptions {
  readonly seed: number;
  readonly hosts: number;
  readonly hours: number;
  /** Instead of the faults of the seed: a shorter list of them. */
  readonly faults?: readonly Fault[];
}

export interface Outcome {
  readonly options: SimulationOptions;
  readonly plan: Plan;
  /** Null: all was well. */
  readonly violation: string | null;
  readonly hash: string;
  readonly lines: readonly string[];
  readonly tally: Tally;
}

export interface Tally {
  readonly events: number;
  readonly steps: number;
  readonly messages: number;
  readonly powerCuts: number;
  readonly kills: number;
  readonly controlKills: number;
  readonly restores: number;
  readonly offers: number;
  readonly attempts: number;
  readonly hostHours: number;
  readonly cpuMs: number;
}

/** Runs the history of a seed. */
export async function simulate(options: SimulationOptions): Promise<Outcome> {
  useOpenSsl();
  const beganUs = cpuMicroseconds();
  const { seed, hosts, hours } = options;
  const drawn = planOf(seed, hosts, hours, TROUBLE_FROM_MS);
  const plan = { ...drawn, faults: options.faults ?? drawn.faults };
  const world = await makeWorld(options, plan);
  const endMs = TROUBLE_FROM_MS + hours * 60 * MINUTE;
  keepBackups(world.fleet);
  await world.runUntil(TROUBLE_FROM_MS);
  for (const fault of plan.faults)
    world.fleet.time.at(fault.atMs, () => {
      if (world.fleet.isCalm) return;
      world.fleet.trace.tell(`fault ${JSON.stringify({ ...fault, atMs: undefined })}`);
      applyFault(world.fleet, fault);
    });
  await world.runUntil(endMs);
  calmDown(world.fleet);
  for (const problem of await waitForOrder(world, endMs)) world.fleet.onViolation(problem);
  const { trace, network, control, machines, time } = world.fleet;
  const sum = (of: (host: SimHost) => number): number =>
    machines.reduce((total, host) => total + of(host), 0);
  return {
    options,
    plan,
    violation: world.violation(),
    hash: trace.hash(),
    lines: trace.lines(),
    tally: {
      events: trace.events,
      steps: world.steps(),
      messages: network.counts.messages,
      powerCuts: sum((host) => host.counts.powerCuts),
      kills: sum((host) => host.counts.kills),
      controlKills: control.counts.kills,
      restores: control.restores,
      offers: world.fleet.controlTruth.counts.offers,
      attempts: world.fleet.controlTruth.counts.ends,
      hostHours: (hosts * time.nowMs()) / (60 * MINUTE),
      cpuMs: (cpuMicroseconds() - beganUs) / 1000,
    },
  };
}

/** What is not in order when the calm is over. */
async function waitForOrder(world: World, calmFromMs: number): Promise<readonly string[]> {
  let wasInOrder = false;
  for (let look = LOOK_EVERY_MS; look <= CALM_MS; look += LOOK_EVERY_MS) {
    await world.runUntil(calmFromMs + look);
    if (world.violation() !== null) return [];
    const problems = await endProblems(world.fleet, calmFromMs);
    if (look + LOOK_EVERY_MS > CALM_MS || (problems.length === 0 && wasInOrder)) return problems;
    wasInOrder = problems.length === 0;
  }
  return [];
}

/** Of this process: what else the machine does changes nothing in it. */
function cpuMicroseconds(): number {
  const { user, system } = process.cpuUsage();
  return user + system;
}

interface World {
  readonly fleet: Fleet;
  violation(): string | null;
  steps(): number;
  /** Lets virtual time go on; stops at the first violation. */
  runUntil(untilMs: number): Promise<void>;
}

async function makeWorld(options: SimulationOptions, plan: Plan): Promise<World> {
  const { seed } = options;
  const time = simTime();
  const trace = createTrace(() => time.nowMs());
  let violation: string | null = null;
  const onViolation = (what: string): void => {
    violation ??= what;
    trace.tell(`VIOLATION ${what}`);
  };
  const wallMs = (): number => START_WALL_MS + time.nowMs();
  const control = await simControl({ seed, time, wallMs, onBug: onViolation });
  const network = simNetwork(seed, time, (request) => control.serve(request));
  const versions = plan.kinds.map((kind, index) => simVersion(index + 1, kind));
  const clonedIds = new Set<string>();
  const hostTruth = hostOracle({
    nowMs: () => time.nowMs(),
    trace,
    versions: () => versions,
    revokedMs: (artifactId) => controlTruth.revokedMs(artifactOf(artifactId)),
    onViolation,
  });
  const controlTruth = controlOracle({
    control,
    nowMs: () => time.nowMs(),
    trace,
    limits: { maxFailurePercent: POLICY.maxFailurePercent, soakMs: POLICY.soakSeconds * 1000 },
    wasConfirmed: (host, artifactId) => hostTruth.wasConfirmed(host, artifactId),
    wasCloned: (host) => clonedIds.has(host),
    onViolation,
  });
  const hostOptions = (index: number): HostOptions => ({
    index,
    seed,
    time,
    network,
    wallMs,
    versions: () => versions,
    watch: (host) => hostTruth.watch(host),
    onBug: (host, error) =>
      onViolation(
        `host ${host.index}: the agent crashed: ${error instanceof Error ? (error.stack ?? error.message) : String(error)}`,
      ),
  });
  const fleet: Fleet = {
    seed,
    time,
    trace,
    control,
    network,
    versions,
    machines: [],
    clonedIds,
    hostTruth,
    controlTruth,
    snapshots: new Map(),
    isCalm: false,
    hostOptions,
    onViolation,
  };
  let steps = 0;
  const quiet = async (): Promise<void> => {
    await settle();
    for (let turns = 0; control.busy > 0; turns += 1) {
      if (turns > MAX_TURNS) {
        onViolation('control does not come to an end');
        return;
      }
      await settle();
    }
  };
  const runUntil = async (untilMs: number): Promise<void> => {
    while (violation === null && time.next(untilMs)) {
      await quiet();
      steps += 1;
      controlTruth.check();
      for (const host of fleet.machines) hostTruth.check(host);
    }
  };
  // Nothing is broken on purpose before the fleet is set up: whatever fails there is a bug.
  await setUp(fleet, options.hosts, quiet, runUntil).catch((error: unknown) => {
    onViolation(`the fleet cannot be set up: ${String(error)}`);
  });
  return { fleet, violation: () => violation, steps: () => steps, runUntil };
}

/** Groups, hosts, and the first version on all of them. */
async function setUp(
  fleet: Fleet,
  count: number,
  quiet: () => Promise<void>,
  runUntil: (untilMs: number) => Promise<void>,
): Promise<void> {
  const { control } = fleet;
  const ask = async <T>(work: Promise<T>): Promise<T> => {
    // What fails is heard of below, when control has come to rest.
    work.catch(() => undefined);
    await quiet();
    return await work;
  };
  const poll = { minSeconds: 60, activeSeconds: 15 };
  for (const group of groups) {
    const body = { rollout: POLICY, poll };
    await ask(control.operator.call('groupPut', { params: { group: group as GroupName }, body }));
  }
  for (let index = 0; index < count; index += 1) {
    const group = groups[index % groups.length] as GroupName;
    const { token, rootSha256 } = await ask(
      control.operator.call('joinTokenCreate', { body: { group } }),
    );
    const host = new SimHost(fleet.hostOptions(index));
    fleet.machines.push(host);
    const joined = { isOver: false };
    const enrolling = host.enrol(token, rootSha256).finally(() => {
      joined.isOver = true;
    });
    while (!joined.isOver) await runUntil(fleet.time.nowMs() + 200);
    await enrolling;
  }
  const [first] = fleet.versions;
  if (first === undefined) throw new Error('a history has a first version');
  await ask(admit(control, first));
  for (const group of groups)
    await ask(
      control.operator.call('groupPin', {
        params: { group: group as GroupName },
        body: { artifactId: first.artifactId, reason: 'the first version' },
      }),
    );
}

/** All trouble ends: lines are good, disks too, clocks are right, whoever was switched off or killed is back. */
function calmDown(fleet: Fleet): void {
  fleet.isCalm = true;
  fleet.trace.tell('calm');
  for (const host of fleet.machines) {
    fleet.network.set(host.index, fineWeather);
    host.trouble = null;
    host.clockErrorMs = 0;
    host.disarm();
    if (host.isOff) host.switchOn();
  }
  for (const scope of [null, ...groups])
    applyFault(fleet, { atMs: fleet.time.nowMs(), kind: 'order', order: 'lift', group: scope });
}

function keepBackups(fleet: Fleet): void {
  fleet.time.at(fleet.time.nowMs() + BACKUP_EVERY_MS, () => {
    fleet.control.backUp();
    keepBackups(fleet);
  });
}
