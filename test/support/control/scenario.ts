/**
 * The language of test/scenarios/*.txt: one command a line, `#` starts prose. The output of each command is what the engine
 * decided, in words; `<name>.txt` and `<name>.out` lie side by side in git.
 */
import { desiredOf } from '#/control/core/desired.ts';
import type { Decision } from '#/control/core/plan.ts';
import { rollOf } from '#/control/core/plan.ts';
import { judge } from '#/control/core/stage.ts';
import type { AttemptPhase } from '#/protocol/documents.ts';
import { artifactOf, blankHost, hostIdOf, SmallFleet } from './small-fleet.ts';

const shortId = (text: string): string =>
  text.replaceAll(/h-0*([0-9a-f]+)/g, 'host $1').replaceAll(/r-0*([0-9a-f]+)/g, 'rollout $1');

function line(decision: Decision): string {
  return `  ${decision.kind}: ${shortId(decision.words)}`;
}

function numbers(list: string): readonly number[] {
  return list.split(',').flatMap((part) => {
    const [from = '', to] = part.split('-');
    if (to === undefined) return [Number(from)];
    return Array.from({ length: Number(to) - Number(from) + 1 }, (_, i) => Number(from) + i);
  });
}

function policyOf(words: readonly string[]): Record<string, unknown> {
  return Object.fromEntries(
    words.map((word) => {
      const [key = '', value = ''] = word.split('=');
      return [
        key,
        value.includes(',') || key === 'wavePercents'
          ? value.split(',').map(Number)
          : Number.isNaN(Number(value))
            ? value
            : Number(value),
      ];
    }),
  );
}

function show(fleet: SmallFleet): string[] {
  const { rollout } = fleet;
  if (rollout === null) return ['  no rollout'];
  const scene = fleet.scene();
  const lines = [
    `  rollout to v${Number.parseInt(rollout.artifactId, 16)}: ${rollout.state}; ${shortId(rollout.words)}`,
  ];
  for (const stage of rollout.stages) {
    const words =
      stage.openedAtMs === null || stage.state === 'passed' || rollout.state !== 'running'
        ? stage.state
        : `${stage.state}; ${judge(scene, rollout, stage, rollOf(scene, rollout, stage), stage.index === rollout.stages.length - 1).words}`;
    lines.push(`  stage ${stage.name}: ${words}`);
  }
  return lines;
}

const phases: Readonly<Record<string, AttemptPhase>> = {
  confirm: 'confirmed',
  rollback: 'rolled-back',
  refuse: 'refused',
  abort: 'aborted',
  switch: 'switching',
  attention: 'needs-attention',
};

/** The output of a scenario. */
export function runScenario(text: string): string {
  let fleet = new SmallFleet({ hosts: 0, policy: {} });
  const out: string[] = [];
  for (const raw of text.split('\n')) {
    const command = raw.trim();
    if (command === '' || command.startsWith('#')) continue;
    out.push(`> ${command}`);
    const [verb = '', ...words] = command.split(/\s+/);
    if (verb === 'fleet')
      fleet = new SmallFleet({ hosts: Number(words[0]), policy: policyOf(words.slice(1)) });
    else out.push(...perform(fleet, verb, words));
    if (verb !== 'show' && verb !== 'why') out.push(...fleet.settle().map(line));
  }
  return `${out.join('\n')}\n`;
}

function perform(fleet: SmallFleet, verb: string, words: readonly string[]): string[] {
  const [first = '', second = ''] = words;
  const phase = phases[verb];
  if (phase !== undefined) {
    for (const i of numbers(first)) fleet.report(i, phase, second === '' ? null : second);
    return [];
  }
  const mark = { reason: first, actor: 'ada', atMs: fleet.now };
  switch (verb) {
    case 'pin':
      fleet.pin(Number(first));
      return [];
    case 'wait':
      fleet.now += Number(first) * 1000;
      return [];
    case 'offline':
      for (const i of numbers(first)) {
        fleet.offline.add(hostIdOf(i));
        fleet.put({ ...fleet.host(i), lastSeenAtMs: fleet.now - 3_600_000 });
      }
      return [];
    case 'online':
      for (const i of numbers(first)) fleet.offline.delete(hostIdOf(i));
      return [];
    case 'join':
      for (const i of numbers(first)) fleet.put(blankHost(i));
      return [];
    case 'label':
      for (const i of numbers(first)) {
        const [key = '', value = ''] = second.split('=');
        fleet.put({ ...fleet.host(i), labels: { [key]: value } });
      }
      return [];
    case 'hold':
      for (const i of numbers(first))
        fleet.put({ ...fleet.host(i), hold: { ...mark, reason: 'investigation' } });
      return [];
    case 'unhold':
      for (const i of numbers(first)) fleet.put({ ...fleet.host(i), hold: null });
      return [];
    case 'pin-host': {
      const i = Number(first);
      const pin = {
        ...fleet.group.pin,
        host: hostIdOf(i),
        artifactId: artifactOf(Number(second)),
        reason: 'bisect',
        actor: 'ada',
        expiresAtMs: null,
      };
      fleet.put({ ...fleet.host(i), pin: pin as never });
      return [];
    }
    case 'halt':
      fleet.fleetHalt = { scope: 'fleet', ...mark };
      return [];
    case 'lift':
      fleet.fleetHalt = null;
      return [];
    case 'resume':
      if (fleet.rollout)
        fleet.rollout = {
          ...fleet.rollout,
          state: 'running',
          acceptedAtMs: fleet.now,
          words: 'resumed',
        };
      return [];
    case 'promote':
      if (fleet.rollout) {
        const open = fleet.rollout.stages.findLast((stage) => stage.openedAtMs !== null);
        const stages = fleet.rollout.stages.map((stage) =>
          stage.index === open?.index ? { ...stage, state: 'passed' as const } : stage,
        );
        fleet.rollout = { ...fleet.rollout, stages };
      }
      return [];
    case 'abort-rollout':
      if (fleet.rollout)
        fleet.rollout = {
          ...fleet.rollout,
          state: 'aborted',
          words: 'aborted',
          isReverting: first === 'revert',
        };
      return [];
    case 'revoke': {
      const release = fleet.releases.get(artifactOf(Number(first)));
      if (release)
        fleet.releases.set(release.artifactId, {
          ...release,
          revoked: { ...mark, reason: 'bad build' },
        });
      return [];
    }
    case 'show':
      return show(fleet);
    case 'why': {
      const desired = desiredOf(
        fleet.scene(),
        fleet.scene().hosts.find((h) => h.id === hostIdOf(Number(first))) ??
          fleet.host(Number(first)),
      );
      return desired.steps.map(
        (step) => `  ${step.applies ? 'yes' : 'no '} ${step.rule}: ${shortId(step.words)}`,
      );
    }
    default:
      throw new Error(`unknown command ${verb}`);
  }
}
