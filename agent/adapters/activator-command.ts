/** Versions that commands start and stop, for example an init script or a container engine. */
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { must, Problem } from '#/protocol/errors.ts';
import {
  configVariable,
  expandSlot,
  single,
  type ActivatorOptions,
  type Starter,
  type Version,
} from './activator-contract.ts';
import { describeExit, MINIMAL_ENVIRONMENT } from './exec.ts';
import { findByEnvironment } from './processes.ts';

/** Between SIGTERM and SIGKILL for a command that runs over its limit. */
const KILL_GRACE_MS = 2_000;
/** Variables of the services that a command leaves running. */
const OWNER = 'SWITCHBACK_COMMAND_OF';
const ARTIFACT = 'SWITCHBACK_ARTIFACT';

/** The starter of kind `command`. */
export function commandStarter(options: ActivatorOptions): Starter {
  const environmentOf = (version: Version): Readonly<Record<string, string>> => ({
    ...options.settings.environment,
    ...configVariable(version),
    SWITCHBACK_SLOT: version.slot,
  });
  /** What `start` leaves running is the service; these marks say whose it is. */
  const marksOf = (version: Version): Readonly<Record<string, string>> => ({
    [ARTIFACT]: version.artifactId,
    [OWNER]: options.runDirectory,
  });
  const run = async (
    what: 'start' | 'stop',
    argv: readonly string[],
    version: Version,
    timeoutMs: number,
  ): Promise<void> => {
    mkdirSync(options.runDirectory, { recursive: true, mode: 0o700 });
    const result = await options.exec.run({
      argv: expandSlot(argv, version.path),
      timeoutMs,
      killGraceMs: KILL_GRACE_MS,
      cwd: version.path,
      environment: { ...environmentOf(version), ...(what === 'start' ? marksOf(version) : {}) },
      leftovers: what === 'start' ? 'keep' : 'kill',
      outputFile: join(options.runDirectory, `${what}.log`),
    });
    if (result.ended === 'exit' && result.code === 0) return;
    throw new Problem('E_ACTIVATION', `${what} command ${argv[0]}: ${describeExit(result)}`, {
      slot: version.slot,
      code: result.code,
    });
  };
  const stop = async (version: Version): Promise<void> => {
    const { activation } = version;
    if (activation.kind !== 'command' || activation.stop === undefined) return;
    await run('stop', activation.stop, version, activation.timeoutMs);
  };
  return {
    async start(version, before) {
      must(version.activation.kind === 'command', 'the command starter gets versions of its kind');
      // Idempotent: a start that was cut off is stopped like a version that runs.
      if (before?.activation.kind === 'command') await stop(before);
      else await stop(version);
      await run('start', version.activation.start, version, version.activation.timeoutMs);
      return {};
    },
    recipe: (version) => {
      const { activation, path } = version;
      must(activation.kind === 'command', 'the command starter gets versions of its kind');
      return {
        kind: 'command',
        start: expandSlot(activation.start, path),
        stop: activation.stop === undefined ? null : expandSlot(activation.stop, path),
        environment: { ...MINIMAL_ENVIRONMENT, ...environmentOf(version), ...marksOf(version) },
      };
    },
    stop,
    running(_live, before) {
      const marked = findByEnvironment(OWNER, options.runDirectory)
        .map(({ environment }) => environment.get(ARTIFACT) ?? '')
        .filter((artifact) => artifact !== '');
      if (marked.length > 0) return Promise.resolve(single(marked));
      // The service may run elsewhere (a container engine): what was started in this boot is taken to run.
      return Promise.resolve(before?.activation.kind === 'command' ? before.artifactId : null);
    },
  };
}
