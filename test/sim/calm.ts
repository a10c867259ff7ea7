/** What has to hold at the end of a history, after all trouble is over for a while: agreement, completeness, liveness. */
import { type Attempt, type Host, isActive, openAttempt } from '#/control/core/model.ts';
import { outcomeOf } from '#/control/core/report.ts';
import type { Engine } from '#/control/engine/engine.ts';
import { terminalPhases } from '#/protocol/documents.ts';
import { artifactOf } from '#/protocol/ids.ts';
import type { Fleet } from './faults.ts';
import type { SimHost } from './host.ts';
import { liveSlot } from './oracle-host.ts';

type Row = Readonly<Record<string, unknown>>;

/** Everything that is not in order. `calmFromMs`: when the last trouble ended. */
export async function endProblems(fleet: Fleet, calmFromMs: number): Promise<readonly string[]> {
  const problems: string[] = [];
  const { control, machines, clonedIds } = fleet;
  const { engine } = control;
  if (engine === null) return ['L0 control does not run'];
  const own = machines.filter((host) => host.id !== null && !clonedIds.has(host.id));
  for (const host of own) {
    await fleet.hostTruth.checkKept(host);
    problems.push(...hostProblems(fleet, host), ...countProblems(fleet, host));
  }
  for (const [id, host] of engine.fleet.hosts) {
    if (clonedIds.has(id)) continue;
    const attempt = openAttempt(host);
    const rollout = engine.fleet.rolloutOf.get(host.group) ?? null;
    const waits = isActive(rollout) && rollout.state !== 'running';
    if (
      attempt !== null &&
      !(waits && attempt.rolloutId === rollout.id) &&
      !isOldOrder(engine.fleet, host, attempt)
    )
      problems.push(
        `L1 the attempt of ${attempt.artifactId.slice(0, 8)} on ${id} is not over: ${attempt.phase}, offered ${attempt.offeredAtMs}; the host is ${host.state}: ${host.why}`,
      );
  }
  for (const [name, rollout] of engine.fleet.rolloutOf) {
    if (rollout.state === 'running')
      problems.push(`L2 the rollout of ${name} still runs: ${rollout.words}`);
    if (isActive(rollout) && rollout.words === '')
      problems.push(`L2 the rollout of ${name} has no reason`);
  }
  for (const host of own) problems.push(...targetProblems(fleet, host));
  const calmMinutes = Math.round((fleet.time.nowMs() - calmFromMs) / 60_000);
  return problems.map((problem) => `${problem} (after ${calmMinutes} minutes of calm)`);
}

/**
 * An order from before a restore, and a host that had heard a newer one: it refuses, and says so, until the operator pins anew (F73).
 */
function isOldOrder(of: Engine['fleet'], host: Host, attempt: Attempt): boolean {
  const pin = host.pin ?? of.groups.get(host.group)?.pin ?? null;
  const isOld = of.isRestored && pin !== null && pin.epoch < of.epoch;
  return isOld && attempt.agentAttempt === null && /E_ROLLBACK.*seq/.test(host.why);
}

/** Agent and control say the same of a host. */
function hostProblems(fleet: Fleet, host: SimHost): readonly string[] {
  const known = fleet.control.engine?.fleet.hosts.get(host.id ?? ('' as never));
  const agent = host.agent;
  if (agent === null) return [`L0 host ${host.index} has no agent`];
  if (known === undefined) return [`L3 control does not know host ${host.index}`];
  const live = liveSlot(host.disk.image());
  const state = agent.runner.state();
  const problems: string[] = [];
  if (known.running !== live)
    problems.push(`L3 control says that host ${host.index} runs ${known.running}, it is ${live}`);
  const at = state.at === 'checking' ? 'idle' : state.at;
  if (known.state !== at && known.state !== 'checking')
    problems.push(`L3 control says that host ${host.index} is ${known.state}, it is ${at}`);
  if (host.active?.artifactId !== live)
    problems.push(`I1 host ${host.index} runs ${host.active?.artifactId}, live is ${live}`);
  if (agent.store.waitingReports(1).length > 0)
    problems.push(`L4 host ${host.index} still has reports to send`);
  if (known.quarantine !== null)
    problems.push(`F62 host ${host.index} is quarantined: ${known.quarantine.reason}`);
  return problems;
}

/** Each attempt that ended on a host is at control once, with the same end. */
function countProblems(fleet: Fleet, host: SimHost): readonly string[] {
  const { database, restoredMs } = fleet.control;
  const events = database
    .prepare('SELECT attempt, phase FROM report_events WHERE host_id = ?')
    .all(host.id) as Row[];
  const attempts = database
    .prepare(
      'SELECT agent_attempt, outcome FROM attempts WHERE host_id = ? AND agent_attempt IS NOT NULL',
    )
    .all(host.id) as Row[];
  const problems: string[] = [];
  for (const end of fleet.hostTruth.truthOf(host).ends.values()) {
    const terminal = events.filter(
      ({ attempt, phase }) =>
        attempt === end.attempt && terminalPhases.some((one) => one === phase),
    );
    // What control had before the moment of its backup went with the store.
    const mayBeLost = end.atMs <= restoredMs;
    if (terminal.length !== 1 && !(mayBeLost && terminal.length === 0))
      problems.push(
        `I5 attempt ${end.attempt.slice(0, 8)} of host ${host.index} ended ${end.phase}; control has ${terminal.length} ends of it`,
      );
    const counted = attempts.filter((row) => row['agent_attempt'] === end.attempt);
    if (counted.length > 1)
      problems.push(`I5 attempt ${end.attempt.slice(0, 8)} is counted ${counted.length} times`);
    const outcome = counted[0]?.['outcome'];
    // One that ended before a rewind of its host already may count by that end.
    const before = fleet.hostTruth.truthOf(host).lost.get(end.attempt) ?? end;
    const expected = [end, before].map(({ phase, code }): unknown => outcomeOf(phase, code));
    const isExpected = expected.includes(outcome) || outcome === 'withdrawn';
    if (outcome !== undefined && !isExpected && !mayBeLost)
      problems.push(
        `I5 attempt ${end.attempt.slice(0, 8)} of host ${host.index} ended ${end.phase} and is counted ${String(outcome)}`,
      );
  }
  return problems;
}

/** A healthy, reachable host of a rollout that is done runs its version. */
function targetProblems(fleet: Fleet, host: SimHost): readonly string[] {
  const fleetNow = fleet.control.engine?.fleet;
  const known = fleetNow?.hosts.get(host.id ?? ('' as never));
  if (fleetNow === undefined || known === undefined) return [];
  const group = fleetNow.groups.get(known.group);
  const rollout = fleetNow.rolloutOf.get(known.group) ?? null;
  if (group?.pin == null || rollout?.state !== 'done') return [];
  if (group.pin.artifactId !== rollout.artifactId) return [];
  const isExcused =
    known.hold !== null ||
    known.pin !== null ||
    known.quarantine !== null ||
    known.state === 'needs-attention' ||
    // An order from before a restore moves nobody backwards: the operator has to pin anew (F73).
    (fleetNow.isRestored && group.pin.epoch < fleetNow.epoch) ||
    fleetNow.releases.get(artifactOf(rollout.artifactId))?.revoked != null ||
    fleet.controlTruth.hasFailed(known.id, rollout.artifactId) ||
    known.denied.some((entry) => entry.artifactId === rollout.artifactId);
  if (isExcused || known.running === rollout.artifactId) return [];
  return [
    `L5 host ${host.index} runs ${known.running?.slice(0, 8)}, its rollout to ${rollout.artifactId.slice(0, 8)} is done; ${known.state}: ${known.why}`,
  ];
}
