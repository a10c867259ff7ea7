/** The play: what the demo shows, act by act. Every sentence it prints is checked before it is printed. */
import { statSync } from 'node:fs';
import { waitFor } from '#/test/support/fleet/fleet.ts';
import {
  bundleFile,
  expect,
  hostDetail,
  lastLoggedState,
  pinAndWatch,
  printTransfers,
  publish,
  type Stage,
  tamper,
} from './acts.ts';
import { megabytes, seconds } from './screen.ts';

/** Host states in which the switch is under way: between the decision and the commit. */
const IN_THE_SWITCH = ['arming', 'switching', 'trial'];
const RECOVERY_TIMEOUT_MS = 60_000;

export async function firstVersion(stage: Stage): Promise<void> {
  stage.screen.act('1. v1 everywhere: built, signed, imported, pinned, installed');
  await publish(stage, { version: 'v1', release: 1, healthyForMs: null });
  for (const group of ['web', 'edge']) {
    const rollout = await pinAndWatch(stage, group, 'v1', 'first version');
    expect(rollout.state === 'done', `v1 is done in ${group}`);
    await printTransfers(stage, group, true);
  }
}

export async function secondVersion(stage: Stage): Promise<void> {
  stage.screen.act('2. v2, canary first; only what changed travels');
  await publish(stage, { version: 'v2', release: 2, healthyForMs: null });
  const rollout = await pinAndWatch(stage, 'web', 'v2', 'new features');
  expect(rollout.state === 'done', 'v2 is done in web');
  await printTransfers(stage, 'web');
}

export async function badVersion(stage: Stage): Promise<void> {
  const { fleet, screen } = stage;
  screen.act('3. v3 starts well and then fails its health check');
  await publish(stage, { version: 'v3', release: 3, healthyForMs: 2500 });
  const rollout = await pinAndWatch(stage, 'web', 'v3', 'more features');
  expect(rollout.state === 'halted', 'the rollout of v3 is halted');
  screen.good(`rollout halted: ${rollout.words}`);
  const web = fleet.hosts.filter((host) => host.group === 'web');
  const details = await Promise.all(web.map((host) => hostDetail(fleet, host)));
  expect(
    details.every((detail) => detail.runningVersion === 'v2'),
    'every host of web runs v2',
  );
  const tried = details.filter((detail) => detail.attempts[0]?.version === 'v3');
  expect(tried.length === 1, 'only the canary tried v3');
  const canary = fleet.hosts.find((host) => host.id === tried[0]?.id);
  if (canary === undefined) throw new Error('the canary is not a host of this fleet');
  const back = tried[0]?.attempts.find((one) => one.phase === 'rolled-back');
  const outages = stage.loads.get(canary.name)?.take().outages ?? [];
  const longestMs = Math.max(0, ...outages.map((one) => one.durationMs));
  screen.good(
    `${canary.name} went back to v2 by itself (${back?.code}); v3 is on its deny-list; longest time without a good answer ${seconds(longestMs)}`,
  );
  screen.good('web: every host runs v2; the others never saw v3');
}

export async function tampered(stage: Stage): Promise<void> {
  const { fleet, screen } = stage;
  screen.act('4. A tampered bundle');
  const bad = bundleFile(stage, 'tampered');
  const bits = tamper(bundleFile(stage, 'v3'), bad);
  screen.line(
    `${bits} bits of ${megabytes(statSync(bad).size)} are flipped, manifest and signature are whole`,
  );
  const imported = await fleet.tryCli(['release', 'import', bad]);
  expect(refusal(imported.stderr).startsWith('E_CHUNK'), 'control refuses the tampered bundle');
  screen.good(`control refuses it: ${refusal(imported.stderr)}`);
  const [, , , edge] = fleet.hosts;
  if (edge === undefined) throw new Error('there is no fourth host');
  const before = await hostDetail(fleet, edge);
  const installed = await fleet.agentCommand(edge, ['install', bad]);
  expect(refusal(installed.stderr).startsWith('E_CHUNK'), 'the host refuses the tampered bundle');
  screen.good(`${edge.name} refuses it: ${refusal(installed.stderr)}`);
  const after = await hostDetail(fleet, edge);
  expect(after.running === before.running, 'the host runs what it ran before');
  screen.good(`${edge.name} still runs ${after.runningVersion}`);
}

export async function killedInMidSwitch(stage: Stage): Promise<void> {
  const { fleet, screen } = stage;
  screen.act('5. An agent is killed with SIGKILL in the middle of its switch');
  const edge = fleet.hosts.filter((host) => host.group === 'edge');
  const killed: string[] = [];
  const watch = setInterval(() => {
    for (const host of edge) {
      if (killed.length === 0 && IN_THE_SWITCH.includes(lastLoggedState(host))) {
        killed.push(host.name);
        host.agent.kill();
      }
    }
  }, 10);
  const rollout = await pinAndWatch(stage, 'edge', 'v2', 'catch up with web');
  clearInterval(watch);
  expect(killed.length === 1, 'an agent was killed in its switch');
  expect(rollout.state === 'done', 'the rollout goes on to its end');
  for (const host of edge) {
    await waitFor(`${host.name} runs v2`, RECOVERY_TIMEOUT_MS, async () =>
      (await hostDetail(fleet, host)).runningVersion === 'v2' ? true : null,
    );
  }
  screen.good(`${killed[0]} was killed in its switch, started again, and finished it: both run v2`);
  await printTransfers(stage, 'edge');
}

/** The line of a command's output that has the error code. */
function refusal(output: string): string {
  return output.split('\n').find((line) => /^E_[A-Z_]+:/.test(line)) ?? output.trim();
}
