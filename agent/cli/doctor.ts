/** Looks at the real host, changes nothing that stays, and says what rescues the host when all else fails. */
import { randomBytes } from 'node:crypto';
import { existsSync, lstatSync, readFileSync, readlinkSync, rmSync } from 'node:fs';
import { statfs } from 'node:fs/promises';
import { join } from 'node:path';
import type { LoadedSettings, Settings } from '#/agent/config.ts';
import { createExec, describeExit } from '#/agent/adapters/exec.ts';
import { controlUrls, authoritiesOf } from '#/agent/adapters/control-link.ts';
import { nodeFiles } from '#/agent/adapters/file-port.ts';
import { uptimeMs } from '#/agent/adapters/heartbeat.ts';
import { hostArch, isSystemd } from '#/agent/adapters/host-facts.ts';
import {
  identityStore,
  loadIdentity,
  machineDigest,
  type HostIdentity,
} from '#/agent/adapters/identity.ts';
import { readOwner } from '#/agent/adapters/lock.ts';
import { systemRandom } from '#/agent/adapters/random.ts';
import { createTransport } from '#/agent/adapters/transport.ts';
import { replaceFile } from '#/agent/adapters/durable.ts';
import { isProblem } from '#/protocol/errors.ts';
import { examinePartitions } from './doctor-partitions.ts';
import { judgeWatchdog, lookAtWatchdog, type WatchdogJudgement } from './watchdog.ts';

export interface Finding {
  readonly subject: string;
  readonly verdict: 'ok' | 'warning' | 'broken';
  readonly seen: string;
  /** What to do; null where nothing is to be done. */
  readonly act: string | null;
}

const SPACE_WANTED_BYTES = 64 * 1024 * 1024;
const CONTROL_TIMEOUT_MS = 5_000;
/** No host of ours has an earlier clock: this code was written later. */
const EARLIEST_CLOCK_MS = Date.UTC(2026, 0, 1);
const CLOCK_TOLERANCE_MS = 300_000;
const GUARD_PERIOD_MS = 120_000;

const ok = (subject: string, seen: string): Finding => ({
  subject,
  verdict: 'ok',
  seen,
  act: null,
});
const warning = (subject: string, seen: string, act: string): Finding => ({
  subject,
  verdict: 'warning',
  seen,
  act,
});
const broken = (subject: string, seen: string, act: string): Finding => ({
  subject,
  verdict: 'broken',
  seen,
  act,
});

/** All findings, in a fixed order; the last one says what rescues the host. */
export async function examine(
  loaded: LoadedSettings,
  version: string,
): Promise<readonly Finding[]> {
  const { settings } = loaded;
  const identity = await examineIdentity(settings);
  const guard = examineGuard(settings);
  const watchdog = judgeWatchdog(await lookAtWatchdog());
  return [
    ok('agent', `version ${version} on Node ${process.version}, ${hostArch() ?? process.arch}`),
    loaded.files.length === 0
      ? warning('settings', 'no file, all defaults', 'Write /etc/switchback/config.d/10-host.toml.')
      : ok('settings', loaded.files.join(', ')),
    await examineStateDirectory(settings),
    examineLock(settings),
    await examineSpace('space for state', settings.state.directory),
    ...(settings.slots.kind === 'directory'
      ? [await examineSpace('space for versions', settings.slots.root)]
      : []),
    ...(settings.slots.kind === 'directory'
      ? [examineLink(settings)]
      : await examinePartitions(settings)),
    examineClock(),
    identity.finding,
    await examineControl(settings, identity.identity, version),
    await examinePrograms(settings),
    isSystemd()
      ? ok('systemd', 'is PID 1')
      : warning(
          'systemd',
          'is not PID 1',
          'Units cannot be used here; activation kinds are command and process.',
        ),
    guard,
    watchdog.finding,
    rescue(settings, guard, watchdog),
  ];
}

/** Writes, syncs, renames and reads back in the state directory, as the agent does. */
async function examineStateDirectory(settings: Settings): Promise<Finding> {
  const { directory } = settings.state;
  const subject = 'state directory';
  const found = lstatSync(directory, { throwIfNoEntry: false });
  if (found === undefined)
    return warning(
      subject,
      `${directory} is not there yet`,
      'The agent makes it at its first start; its parent must exist.',
    );
  if (!found.isDirectory())
    return broken(subject, `${directory} is not a directory`, 'Move it away.');
  if ((found.mode & 0o077) !== 0)
    return broken(
      subject,
      `${directory} has mode ${(found.mode & 0o777).toString(8)}`,
      `chmod 700 ${directory}`,
    );
  const path = join(directory, `.doctor-${process.pid}`);
  const wanted = randomBytes(4096);
  try {
    await replaceFile(nodeFiles(), path, wanted);
    const same = readFileSync(path).equals(wanted);
    rmSync(path);
    return same
      ? ok(subject, `${directory} can be written and synced`)
      : broken(
          subject,
          `${directory} gave back other bytes than were written`,
          'Suspect the disk.',
        );
  } catch (error) {
    rmSync(path, { force: true });
    return broken(
      subject,
      messageOf(error),
      'Until it can be written, this host is only observed.',
    );
  }
}

function examineLock(settings: Settings): Finding {
  const owner = readOwner(join(settings.state.directory, 'lock'));
  return owner === null
    ? warning(
        'agent process',
        'nobody holds the lock: no agent runs',
        'systemctl start switchback-agent',
      )
    : ok('agent process', `pid ${owner.pid} (${owner.purpose})`);
}

async function examineSpace(subject: string, path: string): Promise<Finding> {
  let at = path;
  while (!existsSync(at) && at !== '/') at = join(at, '..');
  const space = await statfs(at);
  const free = space.bavail * space.bsize;
  const seen = `${Math.floor(free / 1024 / 1024)} MiB and ${space.ffree} inodes free in ${at}`;
  if (free < SPACE_WANTED_BYTES)
    return broken(subject, seen, 'Free space: nothing can be installed.');
  return ok(subject, seen);
}

function examineLink(settings: Settings): Finding {
  const link = join(settings.slots.root, 'current');
  const found = lstatSync(link, { throwIfNoEntry: false });
  if (found === undefined)
    return warning('live version', 'nothing is live yet', 'Install a first version.');
  if (!found.isSymbolicLink())
    return broken('live version', `${link} is not a link`, 'Move it away; the agent makes it.');
  const target = readlinkSync(link);
  return existsSync(link)
    ? ok('live version', target)
    : broken(
        'live version',
        `${link} leads to ${target}, which is not there`,
        'switchback-agent rollback',
      );
}

function examineClock(): Finding {
  const now = Date.now();
  const seen = new Date(now).toISOString();
  return now < EARLIEST_CLOCK_MS
    ? broken('clock', seen, 'Set the clock: signed dates are compared with a floor of time only.')
    : ok('clock', seen);
}

async function examineIdentity(
  settings: Settings,
): Promise<{ readonly finding: Finding; readonly identity: HostIdentity | null }> {
  const subject = 'identity';
  try {
    const store = identityStore(nodeFiles(), settings.state.directory);
    const machine = machineDigest(settings.host.machineIdFile);
    const identity = await loadIdentity(store, machine, systemRandom());
    if (identity === null) {
      const act =
        'switchback-agent enrol JOIN-TEXT; without control, `install FILE` works all the same.';
      return { finding: warning(subject, 'not enrolled', act), identity };
    }
    return {
      finding: ok(subject, `${identity.host} in group ${identity.group}, class ${identity.class}`),
      identity,
    };
  } catch (error) {
    if (!isProblem(error)) throw error;
    return {
      finding: broken(subject, messageOf(error), 'Enrol this host anew with a new join text.'),
      identity: null,
    };
  }
}

async function examineControl(
  settings: Settings,
  identity: HostIdentity | null,
  version: string,
): Promise<Finding> {
  const subject = 'control';
  if (identity === null)
    return warning(subject, 'not asked: the host has no identity', 'Enrol the host.');
  const [base = ''] = controlUrls(settings.control, identity);
  try {
    const transport = createTransport({
      caPem: authoritiesOf(settings.control, identity.caPem),
      connectTimeoutMs: CONTROL_TIMEOUT_MS,
      headersTimeoutMs: CONTROL_TIMEOUT_MS,
      bodyTimeoutMs: CONTROL_TIMEOUT_MS,
      userAgent: `switchback-agent/${version}`,
    });
    const url = `${base}/agent/v1/trust/metadata/timestamp.json`;
    const request = { method: 'GET' as const, url, headers: {}, body: null, maxBytes: 64 * 1024 };
    let answer: Awaited<ReturnType<typeof transport.exchange>>;
    try {
      answer = await transport.exchange(request);
    } finally {
      await transport.close();
    }
    if (answer.status !== 200)
      return broken(subject, `${url} answered ${answer.status}`, 'Look at control.');
    const theirs = Date.parse(answer.headers['date'] ?? '');
    const offMs = Math.abs(theirs - Date.now());
    return offMs > CLOCK_TOLERANCE_MS
      ? warning(
          subject,
          `${base} answers, but its clock is ${Math.round(offMs / 1000)} s off ours`,
          'Set the clocks.',
        )
      : ok(subject, `${base} answers`);
  } catch (error) {
    if (!isProblem(error)) throw error;
    return broken(
      subject,
      messageOf(error),
      'The host runs on without; check network, address and authority.',
    );
  }
}

/** Programs that the agent or the guard call. */
async function examinePrograms(settings: Settings): Promise<Finding> {
  const exec = createExec();
  const wanted = [
    'flock',
    'sync',
    'cksum',
    ...(settings.slots.kind === 'partition' ? ['blkdiscard', 'blockdev', 'mount', 'umount'] : []),
  ];
  const missing: string[] = [];
  for (const program of wanted) {
    const result = await exec.run({
      argv: ['/bin/sh', '-c', 'command -v "$1"', 'sh', program],
      timeoutMs: 5_000,
    });
    if (result.code !== 0) missing.push(`${program} (${describeExit(result)})`);
  }
  return missing.length === 0
    ? ok('programs', `${wanted.join(', ')} are there`)
    : broken('programs', `missing: ${missing.join(', ')}`, 'Install util-linux and coreutils.');
}

/** The guard leaves a trace at each of its rounds. */
function examineGuard(settings: Settings): Finding {
  const subject = 'guard';
  const trace = join(settings.state.runDirectory, 'guard-round');
  let text: string;
  try {
    text = readFileSync(trace, 'latin1');
  } catch {
    return broken(
      subject,
      'has not run since this boot, or nothing was installed yet',
      existsSync('/run/systemd/system')
        ? 'systemctl enable --now switchback-guard.timer switchback-guard-boot.service: without it nothing takes a version back when the agent cannot.'
        : 'There is no systemd here: start switchback-guard once a minute yourself. Without it nothing takes a version back when the agent cannot.',
    );
  }
  const [bootId, uptime] = text.trim().split(' ');
  const ours = readFileSync('/proc/sys/kernel/random/boot_id', 'latin1').trim();
  const agoMs = uptimeMs() - Number(uptime);
  if (bootId !== ours)
    return broken(
      subject,
      'has not run since this boot',
      'systemctl status switchback-guard.timer',
    );
  return agoMs > GUARD_PERIOD_MS
    ? broken(
        subject,
        `ran last ${Math.round(agoMs / 1000)} s ago`,
        'systemctl status switchback-guard.timer',
      )
    : ok(subject, `ran ${Math.round(agoMs / 1000)} s ago`);
}

/** Who takes a bad version back, when which part is dead. */
function rescue(settings: Settings, guard: Finding, watchdog: WatchdogJudgement): Finding {
  const subject = 'what rescues this host';
  if (settings.slots.kind === 'partition')
    return guard.verdict === 'ok'
      ? ok(
          subject,
          `a version that does not come up: the boot loader, when its tries are used up; one that comes up without its agent, or too late: the guard reboots; ${watchdog.reach}`,
        )
      : warning(
          subject,
          `the boot loader, when its tries are used up, and nothing brings a version that came up without its agent to a reboot; ${watchdog.reach}`,
          'Start the guard.',
        );
  return guard.verdict === 'ok'
    ? ok(
        subject,
        `the agent, and when it is dead or hung the guard, puts \`current\` back and starts the version before; ${watchdog.reach}`,
      )
    : warning(subject, `the agent alone; ${watchdog.reach}`, 'Start the guard.');
}

const messageOf = (error: unknown): string =>
  error instanceof Error ? error.message : String(error);
