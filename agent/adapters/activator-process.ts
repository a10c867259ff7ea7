/** Versions as a process that the agent supervises: for hosts without systemd. */
import { readFileSync } from 'node:fs';
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
import { createSupervisor, programEnvironment, type Program } from './supervisor.ts';

export interface ProcessStarter extends Starter {
  /** Looks after a version that was started before this agent, and starts it if it does not run. */
  resume(version: Version): Promise<void>;
  artifacts(): readonly string[];
  stopAll(): Promise<void>;
  detach(): void;
  restarts(): number;
}

/** The starter of kind `process`. */
export function processStarter(options: ActivatorOptions): ProcessStarter {
  const { settings } = options;
  const supervisor = createSupervisor({
    runDirectory: options.runDirectory,
    logFile: settings.logFile ?? join(options.stateDirectory, 'log', 'service.log'),
    logMaxBytes: settings.logMaxBytes,
    restartMaxDelayMs: settings.restartMaxDelayMs,
    onEvent: options.onEvent,
  });
  const programOf = (version: Version): Program => {
    must(version.activation.kind === 'process', 'the process starter gets versions of its kind');
    const account = settings.user === undefined ? null : accountOf(settings.user);
    return {
      slot: version.slot,
      artifactId: version.artifactId,
      argv: expandSlot(version.activation.argv, version.path),
      cwd: settings.workingDirectory.replaceAll('{slot}', version.path),
      environment: { ...settings.environment, ...configVariable(version) },
      stopTimeoutMs: version.activation.stopTimeoutMs,
      uid: account?.uid ?? null,
      gid: account?.gid ?? null,
    };
  };
  const logFile = settings.logFile ?? join(options.stateDirectory, 'log', 'service.log');
  return {
    recipe(version) {
      const program = programOf(version);
      return {
        kind: 'process',
        start: program.argv,
        environment: programEnvironment(program, options.runDirectory),
        cwd: program.cwd,
        log: logFile,
        uid: program.uid,
        gid: program.gid,
      };
    },
    async start(version) {
      await supervisor.replaceWith(programOf(version));
      return {};
    },
    stop: () => supervisor.stop(),
    running(live) {
      // An agent that was started again looks after what the one before had started.
      if (live?.activation.kind === 'process') supervisor.adopt(programOf(live));
      return Promise.resolve(single(supervisor.running()));
    },
    resume: (version) => supervisor.replaceWith(programOf(version)),
    artifacts: () => supervisor.running(),
    stopAll: () => supervisor.stop(),
    detach: () => supervisor.detach(),
    restarts: () => supervisor.restarts(),
  };
}

/** User and group of an account of /etc/passwd, or the number itself. */
export function accountOf(user: string, passwdFile = '/etc/passwd'): { uid: number; gid: number } {
  for (const line of readFileSync(passwdFile, 'utf8').split('\n')) {
    const [account, , uid, gid] = line.split(':');
    if (account === user || uid === user) return { uid: Number(uid), gid: Number(gid) };
  }
  throw new Problem('E_ACTIVATION', `account ${user} is not in ${passwdFile}`, { user });
}
