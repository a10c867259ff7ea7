/**
 * Starts and stops what runs from a version (D9, D14): the way is chosen by the manifest or by the host's settings. The record
 * `active.json` in the run directory says what was started last in this boot; processes themselves are asked first.
 */
import { readFileSync, renameSync, writeFileSync, mkdirSync } from 'node:fs';
import { dirname, join } from 'node:path';
import * as v from 'valibot';
import {
  activation as activationSchema,
  type Activation,
  type Manifest,
} from '#/bundle/manifest.ts';
import type { Facts } from '#/agent/core/facts.ts';
import { Problem } from '#/protocol/errors.ts';
import { versionId as versionIdSchema, type VersionId } from '#/protocol/ids.ts';
import type { Settings } from '#/agent/config.ts';
import type { Activator, SlotId } from '#/agent/ports.ts';
import { guardFiles } from './guard-files.ts';
import { commandStarter } from './activator-command.ts';
import { rebootStarter } from './activator-reboot.ts';
import { processStarter } from './activator-process.ts';
import { unitStarter } from './activator-units.ts';
import {
  single,
  type ActivatorOptions,
  type ActiveRecord,
  type Starter,
  type Version,
} from './activator-contract.ts';

/** The port, and what the agent's own start and end need. */
export interface HostActivator extends Activator {
  /** Stops what runs: nothing is live. */
  deactivate(): Promise<void>;
  /** At the start of the agent, when no switch is under way: the live version is looked after, or started if it does not run. */
  resume(): Promise<void>;
  /** At the end of the agent: services stay, or are stopped where the settings say so. */
  close(): Promise<void>;
  /** Starts of a supervised process after a death since it was activated; 0 for the other ways. */
  restarts(): number;
}

const RECORD = 'active.json';
const recordSchema = v.object({
  v: v.literal(1),
  bootId: v.string(),
  slot: v.string(),
  artifactId: versionIdSchema,
  path: v.string(),
  configPath: v.optional(v.nullable(v.string()), null),
  activation: activationSchema,
  invocations: v.record(v.string(), v.string()),
});

/** How a version is started on this host: the manifest's way unless the host has its own. E_CONFIG for half of one. */
export function activationFor(settings: Settings['activation'], manifest: Activation): Activation {
  const { kind, units, start, stop, timeoutMs } = settings;
  if (kind === 'manifest') return manifest;
  if (kind === 'none') return { kind: 'none' };
  if (kind === 'units') return { kind: 'units', units: [...(units ?? [])] };
  if (kind === 'process')
    return { kind: 'process', argv: [...(start ?? [])], stopTimeoutMs: timeoutMs };
  return {
    kind: 'command',
    start: [...(start ?? [])],
    timeoutMs,
    ...(stop === undefined ? {} : { stop: [...stop] }),
  };
}

/** The activator of a directory host. */
export function createActivator(options: ActivatorOptions): HostActivator {
  const process = processStarter(options);
  const starters = {
    units: unitStarter(options),
    command: commandStarter(options),
    process,
    none: idleStarter(),
    reboot: rebootStarter(options, options.rebootWaitMs),
  } as const satisfies Record<Activation['kind'], Starter>;
  const guard = guardFiles({
    ...options,
    slotsRoot: dirname(options.currentLink),
  });
  const recordPath = join(options.runDirectory, RECORD);
  const before = (): ActiveRecord | null => readRecord(recordPath, options.bootId);
  const versionOf = (slot: SlotId, artifactId: VersionId, manifest: Manifest): Version => ({
    slot,
    artifactId,
    path: options.slotPath(slot),
    activation: activationFor(options.settings, manifest.activation),
    configPath: options.configPath(artifactId),
  });
  const liveVersion = async (): Promise<Version | null> => {
    const live = await options.live();
    return live === null ? null : versionOf(live.slot, live.artifactId, live.manifest);
  };
  const observe = async (): Promise<Facts['active']> => {
    const [live, last] = [await liveVersion(), before()];
    const kind = live?.activation.kind ?? last?.activation.kind;
    if (kind === undefined) return single(process.artifacts());
    // What was live when this boot was first looked at is what it came up from.
    if (kind === 'reboot' && last === null && live !== null)
      writeRecord(recordPath, { v: 1, bootId: options.bootId, ...live, invocations: {} });
    return await starters[kind].running(live, last);
  };
  const start = async (version: Version): Promise<void> => {
    const last = before();
    // Before anything starts: the guard has to know the way back from the first moment of a trial.
    await guard.settle();
    const recipe = starters[version.activation.kind].recipe(version);
    await guard.keepRecipe(version.slot, recipe, version.configPath);
    if (last !== null && last.activation.kind !== version.activation.kind)
      await starters[last.activation.kind].stop(last);
    const invocations = await starters[version.activation.kind].start(version, last);
    writeRecord(recordPath, { v: 1, bootId: options.bootId, ...version, invocations });
  };
  return {
    observe,
    activate: (slot, artifactId, manifest) => start(versionOf(slot, artifactId, manifest)),
    async deactivate() {
      const last = before();
      if (last !== null) await starters[last.activation.kind].stop(last);
      await process.stopAll();
    },
    async resume() {
      const live = await liveVersion();
      if (live === null) return;
      const { kind } = live.activation;
      if (kind === 'process') await process.resume(live);
      // Nobody else starts a command after a boot, and a unit only where it is enabled.
      else if (kind !== 'reboot' && (await observe()) !== live.artifactId) await start(live);
    },
    async close() {
      if (options.settings.stopWithAgent) await process.stopAll();
      else process.detach();
    },
    restarts: () => process.restarts(),
  };
}

/** For versions that nothing starts: what is live is what runs. */
function idleStarter(): Starter {
  return {
    start: () => Promise.resolve({}),
    recipe: () => ({ kind: 'none' }),
    stop: () => Promise.resolve(),
    running: (live) => Promise.resolve(live?.artifactId ?? null),
  };
}

function readRecord(path: string, bootId: string): ActiveRecord | null {
  let text: string;
  try {
    text = readFileSync(path, 'utf8');
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code === 'ENOENT') return null;
    throw new Problem('E_STATE', `read ${path}`, { path }, { cause });
  }
  let json: unknown = null;
  try {
    json = JSON.parse(text);
  } catch {
    // Torn by a crash: as if nothing had been started, and the processes say the rest.
  }
  const parsed = v.safeParse(recordSchema, json);
  return parsed.success && parsed.output.bootId === bootId ? parsed.output : null;
}

/** In a directory that is gone after a reboot, when nothing runs either: no fsync. */
function writeRecord(path: string, record: ActiveRecord): void {
  mkdirSync(join(path, '..'), { recursive: true, mode: 0o700 });
  writeFileSync(`${path}.tmp`, JSON.stringify(record), { mode: 0o600 });
  renameSync(`${path}.tmp`, path);
}
