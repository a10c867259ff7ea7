/** Commands that ask the running agent. */
import { resolve } from 'node:path';
import { existsSync } from 'node:fs';
import { errors, isProblem, Problem, type ErrorCode } from '#/protocol/errors.ts';
import type { VersionId } from '#/protocol/ids.ts';
import type { AttemptEnd, HostKeys, LocalRequest } from '#/agent/local.ts';
import type { StatusView } from '#/agent/local-view.ts';
import type { JournalEntry } from '#/agent/ports.ts';
import type { CliCommand, Invocation } from './command.ts';
import { readHistory, readLastState } from './offline.ts';
import { driftText, fields, historyText, progressLine, shortId, statusText } from './render.ts';
import { askAgent } from './socket-client.ts';

const HISTORY_DEFAULT = 20;
const ID_PREFIX_MIN = 6;
/** 128 + SIGINT, as shells have it. */
const EXIT_INTERRUPTED = 130;

const none = { usage: '', minArguments: 0, maxArguments: 0, options: {} } as const;
const noWait = {
  'no-wait': { type: 'boolean', doc: 'Return once the agent has taken the order up.' },
} as const;

const socketOf = (invocation: Invocation): string => invocation.load().settings.local.socket;

export const localCommands: readonly CliCommand[] = [
  {
    ...none,
    name: 'status',
    json: 'the view switchback.agent-status/1 of docs/specs/local-api.md',
    summary: 'What runs, what is under way, and why.',
    examples: ['switchback-agent status', 'switchback-agent status --json | jq .live'],
    async run(invocation) {
      const view = await askAgent<StatusView>(socketOf(invocation), { ask: 'status' });
      invocation.print(view, () => statusText(view));
      return 0;
    },
  },
  {
    ...none,
    name: 'check',
    json: '{ok}',
    summary: 'Ask control now.',
    examples: ['switchback-agent check'],
    async run(invocation) {
      const { control } = await askAgent<StatusView>(socketOf(invocation), { ask: 'status' });
      if (control === null)
        throw new Problem(
          'E_UNAVAILABLE',
          'this host has no control to ask: `switchback-agent enrol` it, or `install` a file',
        );
      return order(invocation, { kind: 'check' }, 'control is asked now');
    },
  },
  {
    name: 'install',
    json: 'lines {progress: status}, then {end: {artifactId, phase, code, message}} or {problem}; with --no-wait {ok}',
    summary: 'Install a bundle file, with its trial and rollback; works without control.',
    usage: 'FILE',
    minArguments: 1,
    maxArguments: 1,
    options: noWait,
    examples: [
      'switchback-agent install /mnt/usb/web-1.4.bundle',
      'switchback-agent install ./web.bundle --json --no-wait',
    ],
    notes: 'Exit code 0 only when the version is confirmed good.',
    run(invocation) {
      const path = resolve(invocation.arguments[0] ?? '');
      if (!existsSync(path)) throw new Problem('E_NOT_FOUND', `no file ${path}`);
      return attempt(invocation, { kind: 'install-file', path }, 'the file is taken up');
    },
  },
  {
    ...none,
    name: 'rollback',
    json: 'lines {progress: status}, then {end: {artifactId, phase, code, message}} or {problem}; with --no-wait {ok}',
    summary: 'Return to the previous version.',
    options: noWait,
    examples: ['switchback-agent rollback'],
    run: (invocation) => attempt(invocation, { kind: 'rollback' }, 'the rollback is taken up'),
  },
  {
    ...none,
    name: 'rotate-keys',
    summary: 'Trade the keys of this host for new ones, as it does by itself when they are old.',
    json: '{host, keyId, sealKey}',
    examples: ['switchback-agent rotate-keys'],
    notes:
      'The old key ends at once. Secrets stay readable; whoever seals them compares the new key before sealing to it.',
    async run(invocation) {
      const keys = await askAgent<HostKeys>(socketOf(invocation), { ask: 'rotate-keys' });
      invocation.print(keys, () =>
        fields([
          ['host', keys.host],
          ['key id', keys.keyId],
          ['seal key', keys.sealKey],
        ]),
      );
      return 0;
    },
  },
  {
    name: 'retry',
    json: '{ok}',
    summary: 'Clear the deny-list entry of an artifact, or leave needs-attention.',
    usage: '[ARTIFACT]',
    minArguments: 0,
    maxArguments: 1,
    options: {},
    examples: ['switchback-agent retry', 'switchback-agent retry 3f2a9c01'],
    async run(invocation) {
      const [prefix] = invocation.arguments;
      if (prefix === undefined)
        return await order(invocation, { kind: 'clear' }, 'the agent acts on its own again');
      const artifactId = await deniedArtifact(invocation, prefix);
      return await order(
        invocation,
        { kind: 'retry', artifactId },
        `${shortId(artifactId)} may be tried again`,
      );
    },
  },
  {
    ...none,
    name: 'pause',
    json: '{ok}',
    summary: 'Begin nothing new until `resume`; survives restarts.',
    examples: ['switchback-agent pause'],
    run: (invocation) => order(invocation, { kind: 'pause' }, 'paused'),
  },
  {
    ...none,
    name: 'resume',
    json: '{ok}',
    summary: 'Go on after `pause`.',
    examples: ['switchback-agent resume'],
    run: (invocation) => order(invocation, { kind: 'resume' }, 'resumed'),
  },
  {
    ...none,
    name: 'explain',
    json: '{explanation: [text]}',
    summary: 'Why the host is where it is, and what it waits for.',
    examples: ['switchback-agent explain'],
    async run(invocation) {
      const sentences = await orOffline(
        () => askAgent<readonly string[]>(socketOf(invocation), { ask: 'explain' }),
        () => readLastState(invocation.load().settings),
      );
      invocation.print({ explanation: sentences }, () => `${sentences.join('\n')}\n`);
      return 0;
    },
  },
  {
    name: 'history',
    json: '[entry], oldest first',
    summary: 'The last changes of state.',
    usage: '',
    minArguments: 0,
    maxArguments: 0,
    options: {
      count: {
        type: 'string',
        short: 'n',
        value: 'N',
        doc: `How many; default ${HISTORY_DEFAULT}.`,
      },
    },
    examples: ['switchback-agent history -n 100', 'switchback-agent history --json'],
    async run(invocation) {
      const count = countOf(invocation.options['count']);
      const entries = await orOffline(
        () => askAgent<readonly JournalEntry[]>(socketOf(invocation), { ask: 'history', count }),
        () => readHistory(invocation.load().settings, count),
      );
      invocation.print(entries, () => historyText(entries));
      return 0;
    },
  },
  {
    ...none,
    name: 'verify',
    json: '{artifactId, entries, differences: [{path, what}]}',
    summary: 'Compare the live version on disk with what was signed.',
    examples: ['switchback-agent verify', 'switchback-agent verify --json'],
    notes: `Exit code ${errors.E_SLOT.exit} when something differs.`,
    async run(invocation) {
      const view = await invocation.parts.verifyLive(invocation.load().settings);
      invocation.print(view, () => driftText(view));
      return view.differences.length === 0 ? 0 : errors.E_SLOT.exit;
    },
  },
];

type Order = Extract<LocalRequest, { ask: 'order' }>['command'];

async function order(invocation: Invocation, command: Order, words: string): Promise<number> {
  await askAgent(socketOf(invocation), { ask: 'order', wait: false, command });
  invocation.print({ ok: true }, () => `${words}\n`);
  return 0;
}

/** Gives the order and waits for the end of the attempt; the exit code says how it ended. */
async function attempt(invocation: Invocation, command: Order, words: string): Promise<number> {
  if (invocation.options['no-wait'] === true) return await order(invocation, command, words);
  const { terminal, isJson } = invocation;
  const show = (view: StatusView): void => {
    if (isJson) terminal.out(`${JSON.stringify({ progress: view })}\n`);
    else if (terminal.isTty) terminal.error(`\r\u001b[K${progressLine(view)}`);
  };
  const end = await endOf(invocation, command, show);
  if (end === 'left') return EXIT_INTERRUPTED;
  // Ordered in a trial, the rollback is the end of it, and the one that was wanted.
  const isOrdered =
    command.kind === 'rollback' && end.phase === 'rolled-back' && end.code === 'E_RECALLED';
  if (end.phase === 'confirmed' || isOrdered) {
    const what = isOrdered ? 'rolled back' : 'confirmed';
    invocation.print({ end }, () => `${what}: ${shortId(end.artifactId ?? '')}\n`);
    return 0;
  }
  const code =
    end.code !== null && Object.hasOwn(errors, end.code) ? (end.code as ErrorCode) : 'E_UNHEALTHY';
  throw new Problem(code, `${end.phase}: ${end.message}`, {
    phase: end.phase,
    artifactId: end.artifactId,
  });
}

/** Waits for the end of the attempt. Ctrl-C ends the waiting, not the attempt: that is said. */
async function endOf(
  invocation: Invocation,
  command: Order,
  show: (view: StatusView) => void,
): Promise<AttemptEnd | 'left'> {
  const { terminal, isJson } = invocation;
  const leave = new AbortController();
  const done = terminal.onInterrupt(() => leave.abort());
  const clear = (): void => {
    if (!isJson && terminal.isTty) terminal.error('\r\u001b[K');
  };
  try {
    const request = { ask: 'order', wait: true, command } as const;
    const end = await askAgent<AttemptEnd>(socketOf(invocation), request, show, leave.signal);
    clear();
    return end;
  } catch (error) {
    if (!leave.signal.aborted) throw error;
    clear();
    terminal.error(
      'the agent goes on with it: `switchback-agent status` shows how far it is, `switchback-agent rollback` takes it back\n',
    );
    return 'left';
  } finally {
    done();
  }
}

async function deniedArtifact(invocation: Invocation, prefix: string): Promise<VersionId> {
  if (!/^[0-9a-f]+$/.test(prefix) || prefix.length < ID_PREFIX_MIN)
    throw new Problem('E_USAGE', `expected at least ${ID_PREFIX_MIN} hex digits of an artifact id`);
  const view = await askAgent<StatusView>(socketOf(invocation), { ask: 'status' });
  const found = view.denied.filter((entry) => entry.artifactId.startsWith(prefix));
  const [only] = found;
  if (only === undefined)
    throw new Problem('E_NOT_FOUND', `no denied artifact begins with ${prefix}`);
  if (found.length > 1)
    throw new Problem('E_USAGE', `${found.length} denied artifacts begin with ${prefix}`);
  return only.artifactId as VersionId;
}

function countOf(text: string | boolean | undefined): number {
  if (text === undefined) return HISTORY_DEFAULT;
  const count = Number(text);
  if (!Number.isInteger(count) || count < 1 || count > 1000)
    throw new Problem('E_USAGE', `--count: expected 1 to 1000, not ${String(text)}`);
  return count;
}

/** The running agent knows best; without one, what its files say. */
async function orOffline<T>(online: () => Promise<T>, offline: () => Promise<T>): Promise<T> {
  try {
    return await online();
  } catch (error) {
    if (!isProblem(error, 'E_UNAVAILABLE') || error.details['offline'] !== true) throw error;
    return await offline();
  }
}
