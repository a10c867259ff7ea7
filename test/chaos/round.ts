/** One round: a new version is published and pinned, and one process is killed while it rolls out. */
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { ArtifactId, GroupName } from '#/protocol/ids.ts';
import type { HostView } from '#/protocol/host.ts';
import type { RolloutView } from '#/protocol/rollout.ts';
import { publishVersion } from '#/test/demo/acts.ts';
import { type Fleet, type FleetHost, servicePid } from '#/test/support/fleet/fleet.ts';
import type { Random } from './random.ts';

/** Longest pause between pin and kill: a rollout over three hosts takes about this long. */
const MAX_MOMENT_MS = 9_000;
const OVER: readonly string[] = ['done', 'halted', 'paused'];
const STUCK_AFTER_MS = 120_000;
const ASK_EVERY_MS = 200;
/** One version in four fails its health check after its start. */
const BAD_EVERY = 4;

export interface Told {
  readonly round: number;
  readonly isBad: boolean;
  readonly words: string;
  readonly end: string;
}

/** Publishes and pins one version without a kill, and waits until the fleet rests. */
export async function settle(
  fleet: Fleet,
  round: { readonly round: number; readonly isBad: boolean },
): Promise<RolloutView> {
  const { version, artifactId } = await publishRound(fleet, round.round, round.isBad);
  await pin(fleet, artifactId, round.round);
  const rollout = await untilRest(fleet, version);
  if (rollout.state !== 'done') throw new Error(`${version}, without a kill: ${rollout.state}`);
  return rollout;
}

export async function playRound(fleet: Fleet, round: number, random: Random): Promise<Told> {
  const isBad = random.below(BAD_EVERY) === 0;
  const momentMs = random.below(MAX_MOMENT_MS);
  const { version, artifactId } = await publishRound(fleet, round, isBad);
  await pin(fleet, artifactId, round);
  await new Promise((done) => setTimeout(done, momentMs));
  const victim = kill(fleet, random);
  const rollout = await untilRest(fleet, version);
  return {
    round,
    isBad,
    words: `${version}${isBad ? ' (bad)' : ''}, ${victim} killed after ${(momentMs / 1000).toFixed(2)} s`,
    end: rollout.state,
  };
}

async function publishRound(
  fleet: Fleet,
  round: number,
  isBad: boolean,
): Promise<{ version: string; artifactId: ArtifactId }> {
  const version = `r${round}`;
  const { release } = await publishVersion(fleet, true, {
    version,
    release: round + 1,
    healthyForMs: isBad ? 700 : null,
    soakMs: 1000,
  });
  return { version, artifactId: release.artifactId };
}

async function pin(fleet: Fleet, artifactId: ArtifactId, round: number): Promise<void> {
  const params = { group: 'web' as GroupName };
  await fleet.api().call('groupPin', { params, body: { artifactId, reason: `round ${round}` } });
}

/** Kills one process of the fleet; answers with what it was. */
function kill(fleet: Fleet, random: Random): string {
  const host = random.pick(fleet.hosts);
  const kind = random.pick(['control', 'agent', 'agent', 'install child', 'service'] as const);
  if (kind === 'control') return fleet.control.kill() ? 'control' : 'nothing';
  if (kind === 'service') return killPid(servicePid(host)) ? `service of ${host.name}` : 'nothing';
  if (kind === 'install child' && killPid(childOf(host))) return `install child of ${host.name}`;
  return host.agent.kill() ? `agent of ${host.name}` : 'nothing';
}

function killPid(pid: number | null): boolean {
  if (pid === null) return false;
  try {
    process.kill(pid, 'SIGKILL');
    return true;
  } catch {
    return false;
  }
}

/** A child of the agent that installs, if there is one now. */
function childOf(host: FleetHost): number | null {
  const parent = host.agent.pid;
  if (parent === null) return null;
  for (const name of readdirSync('/proc')) {
    if (!/^\d+$/.test(name)) continue;
    try {
      const stat = readFileSync(join('/proc', name, 'stat'), 'latin1');
      const ppid = Number(stat.slice(stat.lastIndexOf(')') + 2).split(' ')[1]);
      const isInstall = readFileSync(join('/proc', name, 'cmdline'), 'latin1').includes('install');
      if (ppid === parent && isInstall) return Number(name);
    } catch {
      // It ended between the listing and the look.
    }
  }
  return null;
}

/**
 * Waits until the rollout of a version is over and no host is in an attempt. As long as something changes the fleet is not
 * stuck: on a machine that is busy with other work a round may take minutes.
 */
async function untilRest(fleet: Fleet, version: string): Promise<RolloutView> {
  const query = { group: 'web' as GroupName };
  let seen = '';
  let changedAt = performance.now();
  for (;;) {
    try {
      const rollouts = await fleet.api().call('rolloutList', { query });
      const hosts = await fleet.api().call('hostList', { query });
      const rollout = rollouts.items.find((one) => one.version === version);
      const isOver = rollout !== undefined && OVER.includes(rollout.state);
      if (isOver && hosts.items.every((view) => isAtRest(view))) return rollout;
      const states = hosts.items.map(({ state, condition, phase }) => [state, condition, phase]);
      const now = JSON.stringify([rollout?.state, rollout?.stages, states]);
      if (now !== seen) changedAt = performance.now();
      seen = now;
    } catch {
      // Control may be the one that was killed: it is asked again until it answers.
    }
    if (performance.now() > changedAt + STUCK_AFTER_MS) {
      const seconds = STUCK_AFTER_MS / 1000;
      throw new Error(
        `nothing changed for ${seconds} s, and the fleet does not rest after ${version}`,
      );
    }
    await new Promise((done) => setTimeout(done, ASK_EVERY_MS));
  }
}

const isAtRest = (view: HostView): boolean =>
  view.state === 'idle' && view.condition !== 'updating';
