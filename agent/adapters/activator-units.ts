/** Versions that run as systemd units, which resolve the link `current` when they start. */
import { lstatSync, readFileSync } from 'node:fs';
import { dirname } from 'node:path';
import { must, Problem } from '#/protocol/errors.ts';
import { isVersionId } from '#/protocol/ids.ts';
import {
  single,
  type ActiveRecord,
  type ActivatorOptions,
  type Starter,
  type Version,
} from './activator-contract.ts';
import { describeExit } from './exec.ts';
import { linkOf } from './processes.ts';

/** `restart` waits for the job; units have their own limits (TimeoutStartSec), this one is behind them. */
const RESTART_TIMEOUT_MS = 180_000;
const SHOW_TIMEOUT_MS = 10_000;
const PROPERTIES =
  'Id,LoadState,ActiveState,SubState,Result,ExecMainPID,MainPID,InvocationID,ExecMainStartTimestamp';

/** What systemd says about a unit. */
export interface UnitState {
  readonly unit: string;
  readonly loadState: string;
  readonly activeState: string;
  readonly subState: string;
  readonly result: string;
  readonly mainPid: number;
  readonly invocation: string;
  /** Seconds since 1970 at which its main process was started; null for none. */
  readonly startedAtS: number | null;
}

/** Reads the output of `systemctl show --timestamp=unix`, one block per unit. */
export function parseUnitStates(output: string, units: readonly string[]): readonly UnitState[] {
  const blocks = output.split(/\n\n+/).filter((block) => block.trim() !== '');
  return units.map((unit, index) => {
    const values = new Map(
      (blocks[index] ?? '').split('\n').map((line) => {
        const equals = line.indexOf('=');
        return [line.slice(0, equals), line.slice(equals + 1)] as const;
      }),
    );
    const started = /^@(\d+)$/.exec(values.get('ExecMainStartTimestamp') ?? '');
    return {
      unit,
      loadState: values.get('LoadState') ?? 'not-found',
      activeState: values.get('ActiveState') ?? 'inactive',
      subState: values.get('SubState') ?? 'dead',
      result: values.get('Result') ?? '',
      mainPid: Number(values.get('MainPID') ?? values.get('ExecMainPID') ?? 0) || 0,
      invocation: values.get('InvocationID') ?? '',
      startedAtS: started === null ? null : Number(started[1]),
    };
  });
}

export interface UnitEvidence {
  readonly state: Pick<UnitState, 'activeState' | 'invocation' | 'startedAtS'> & {
    readonly unit: string;
  };
  /** The version below whose directory its program, working directory or root lies. */
  readonly pathArtifact: string | null;
  readonly live: string | null;
  /** When the link `current` was made, seconds since 1970; null without a link. */
  readonly linkedAtS: number | null;
  readonly before: Pick<ActiveRecord, 'artifactId' | 'invocations'> | null;
}

/**
 * Which version a unit runs: the path of its process says it best; else it was started by us; else it was started after the
 * link was made. `unknown`: it runs, and nothing tells which version. Null: it does not run.
 */
export function versionOfUnit(evidence: UnitEvidence): string | 'unknown' | null {
  const { state, pathArtifact, live, linkedAtS, before } = evidence;
  if (!['active', 'activating', 'reloading', 'deactivating'].includes(state.activeState))
    return null;
  if (pathArtifact !== null) return pathArtifact;
  if (before !== null) {
    if (before.artifactId === live) return live;
    if (before.invocations[state.unit] === state.invocation) return before.artifactId;
  }
  if (live !== null && linkedAtS !== null && state.startedAtS !== null) {
    // A start in the same second may be one of before: only a later one proves anything.
    if (state.startedAtS > Math.floor(linkedAtS)) return live;
  }
  return 'unknown';
}

/** The version below `releases` in which a process lives, by its program, directory, root, or arguments; null for none. */
export function versionOfProcess(pid: number, releases: string): string | null {
  const inside = (path: string | null): string | null => {
    if (path === null || !path.startsWith(`${releases}/`)) return null;
    const slot = path.slice(releases.length + 1).split('/', 1)[0] ?? '';
    return isVersionId(slot) ? slot : null;
  };
  for (const link of ['exe', 'cwd', 'root'] as const) {
    const found = inside(linkOf(pid, link));
    if (found !== null) return found;
  }
  try {
    for (const argument of readFileSync(`/proc/${pid}/cmdline`, 'utf8').split('\0')) {
      const found = inside(argument);
      if (found !== null) return found;
    }
  } catch {
    // It has just ended.
  }
  return null;
}

/** The starter of kind `units`. */
export function unitStarter(options: ActivatorOptions): Starter {
  const systemctl = options.systemctl ?? 'systemctl';
  const releases = dirname(options.slotPath('x'));
  const run = async (verb: string, units: readonly string[]): Promise<void> => {
    const result = await options.exec.run({
      argv: [systemctl, verb, '--', ...units],
      timeoutMs: RESTART_TIMEOUT_MS,
    });
    if (result.ended === 'exit' && result.code === 0) return;
    throw new Problem('E_ACTIVATION', `${verb} ${units.join(' ')}: ${describeExit(result)}`, {
      units: [...units],
      code: result.code,
    });
  };
  const states = async (units: readonly string[]): Promise<readonly UnitState[]> => {
    const result = await options.exec.run({
      argv: [systemctl, 'show', '--timestamp=unix', `--property=${PROPERTIES}`, '--', ...units],
      timeoutMs: SHOW_TIMEOUT_MS,
      maxOutputBytes: 256 * 1024,
    });
    if (result.ended === 'exit' && result.code === 0) return parseUnitStates(result.stdout, units);
    throw new Problem('E_ACTIVATION', `show ${units.join(' ')}: ${describeExit(result)}`);
  };
  const stop = async (before: ActiveRecord): Promise<void> => {
    if (before.activation.kind === 'units') await run('stop', before.activation.units);
  };
  return {
    async start(version, before) {
      must(version.activation.kind === 'units', 'the unit starter gets versions of its kind');
      const { units } = version.activation;
      const dropped =
        before?.activation.kind === 'units'
          ? before.activation.units.filter((unit) => !units.includes(unit))
          : [];
      if (dropped.length > 0) await run('stop', dropped);
      await run('restart', units);
      const after = await states(units);
      for (const state of after) refuseWrong(state, version, releases);
      return Object.fromEntries(after.map((state) => [state.unit, state.invocation]));
    },
    recipe: ({ activation }) => {
      must(activation.kind === 'units', 'the unit starter gets versions of its kind');
      return { kind: 'units', units: activation.units };
    },
    stop,
    async running(live, before) {
      const units = live?.activation.kind === 'units' ? live.activation.units : [];
      if (units.length === 0) return null;
      const linkedAtS = linkTimeS(options.currentLink);
      const found = (await states(units)).map((state) =>
        versionOfUnit({
          state,
          pathArtifact: state.mainPid === 0 ? null : versionOfProcess(state.mainPid, releases),
          live: live?.artifactId ?? null,
          linkedAtS,
          before,
        }),
      );
      // Of a unit of which nothing tells its version it is only known that it has to be started anew.
      if (found.includes('unknown')) return 'mixed';
      return single(found.filter((one) => one !== null));
    },
  };
}

/** D9: a unit that is not up, or that runs from another version, after its restart (F52). */
function refuseWrong(state: UnitState, version: Version, releases: string): void {
  const { unit, activeState, subState, result } = state;
  if (activeState !== 'active' && activeState !== 'activating') {
    throw new Problem(
      'E_ACTIVATION',
      `unit ${unit} is ${activeState} (${subState}, ${result}) after restart`,
      {
        unit,
      },
    );
  }
  const artifact = state.mainPid === 0 ? null : versionOfProcess(state.mainPid, releases);
  if (artifact !== null && artifact !== version.slot) {
    throw new Problem(
      'E_ACTIVATION',
      `unit ${unit} runs ${artifact} after restart, not ${version.slot}`,
      {
        unit,
      },
    );
  }
}

function linkTimeS(link: string): number | null {
  const stat = lstatSync(link, { throwIfNoEntry: false });
  return stat === undefined ? null : stat.mtimeMs / 1000;
}
