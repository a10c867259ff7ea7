/**
 * Health checks: each run ends at its timeout, whatever the service does (F43, H06), and says what was seen. A failing check
 * is a result, not an exception.
 */
import { connect } from 'node:net';
import { realpathSync, readlinkSync, statSync } from 'node:fs';
import type { HealthCheck } from '#/bundle/manifest.ts';
import type { ProbeResult, Probes } from '#/agent/ports.ts';
import { describeExit, type Exec } from './exec.ts';
import type { Sight } from './probe-contract.ts';
import { probeHttp } from './probe-http.ts';
import { probeResource } from './probe-resource.ts';
import { listPids } from './processes.ts';

export interface ProbesOptions {
  readonly exec: Exec;
  /** Stands for `{slot}` in arguments and paths: the directory that `current` leads to. */
  readonly slotPath: () => string;
  /** A path on the file system whose free space `resource` looks at. */
  readonly diskPath: string;
  readonly wallMs: () => number;
  readonly monotonicMs: () => number;
  /** For tests. */
  readonly systemctl?: string;
}

type Kind = HealthCheck['kind'];
type CheckOf<K extends Kind> = Extract<HealthCheck, { kind: K }>;
type ProbeOf<K extends Kind> = (check: CheckOf<K>, signal: AbortSignal) => Promise<Sight>;

const DETAIL_MAX = 1024;

/** Probes of this host. */
export function createProbes(options: ProbesOptions): Probes {
  const probes = {
    http: probeHttp,
    tcp: probeTcp,
    exec: execProbe(options),
    unit: unitProbe(options),
    process: processProbe(options),
    file: fileProbe(options),
    resource: (check) => probeResource(check, options.diskPath),
  } as const satisfies { [K in Kind]: ProbeOf<K> };
  return {
    async run(check) {
      const startMs = options.monotonicMs();
      // Each kind is called with its own check; the table above is what the compiler checks.
      const probe = probes[check.kind] as ProbeOf<Kind>;
      const sight = await limited((signal) => probe(check, signal), check.timeoutMs);
      return {
        name: check.name,
        ok: sight.ok,
        durationMs: Math.round(options.monotonicMs() - startMs),
        detail: clean(sight.detail),
      } satisfies ProbeResult;
    },
  };
}

/** One line of printable text: a detail ends up in terminals, logs and pages. */
function clean(detail: string): string {
  return detail
    .replaceAll(/[\p{C}\s]+/gu, ' ')
    .trim()
    .slice(0, DETAIL_MAX);
}

/** Ends a run at its limit: the probe is told by the signal, and its result is no longer waited for. */
async function limited(
  run: (signal: AbortSignal) => Promise<Sight>,
  timeoutMs: number,
): Promise<Sight> {
  const abort = new AbortController();
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<Sight>((resolve) => {
    timer = setTimeout(() => {
      abort.abort();
      resolve({ ok: false, detail: `no result after ${timeoutMs} ms` });
    }, timeoutMs);
  });
  try {
    return await Promise.race([run(abort.signal), late]);
  } finally {
    clearTimeout(timer);
    abort.abort();
  }
}

function probeTcp(check: CheckOf<'tcp'>, signal: AbortSignal): Promise<Sight> {
  const where = `${check.host}:${check.port}`;
  return new Promise((resolve) => {
    const socket = connect({ host: check.host, port: check.port });
    const end = (sight: Sight): void => {
      socket.destroy();
      resolve(sight);
    };
    socket.once('connect', () => end({ ok: true, detail: `connected to ${where}` }));
    socket.on('error', (error: NodeJS.ErrnoException) =>
      end({ ok: false, detail: `connect ${where}: ${error.code ?? error.message}` }),
    );
    signal.addEventListener('abort', () => end({ ok: false, detail: `connect ${where}: stopped` }));
  });
}

function execProbe(options: ProbesOptions): ProbeOf<'exec'> {
  return async (check) => {
    const path = options.slotPath();
    const result = await options.exec.run({
      argv: check.argv.map((argument) => argument.replaceAll('{slot}', path)),
      // The exec layer ends the whole tree itself; `limited` is only the net below it.
      timeoutMs: Math.max(1, check.timeoutMs - EXEC_MARGIN_MS),
      environment: { SWITCHBACK_CHECK: check.name },
    });
    return { ok: result.ended === 'exit' && result.code === 0, detail: describeExit(result) };
  };
}
/** Time to end a tree of processes and to read the rest of its output, inside the timeout of the check. */
const EXEC_MARGIN_MS = 50;

function unitProbe(options: ProbesOptions): ProbeOf<'unit'> {
  return async (check, signal) => {
    const result = await options.exec.run({
      argv: [
        options.systemctl ?? 'systemctl',
        'show',
        '--property=LoadState,ActiveState,SubState,Result,NRestarts',
        '--',
        check.unit,
      ],
      timeoutMs: check.timeoutMs,
      signal,
    });
    if (result.ended !== 'exit' || result.code !== 0)
      return { ok: false, detail: `ask systemd for ${check.unit}: ${describeExit(result)}` };
    const state = new Map(
      result.stdout.split('\n').map((line) => {
        const equals = line.indexOf('=');
        return [line.slice(0, equals), line.slice(equals + 1)] as const;
      }),
    );
    const active = state.get('ActiveState') ?? 'unknown';
    return {
      ok: active === 'active',
      detail:
        state.get('LoadState') === 'not-found'
          ? `unit ${check.unit} is not known`
          : `unit ${check.unit} is ${active} (${state.get('SubState')}), result ${state.get('Result')}, ${state.get('NRestarts')} restarts`,
    };
  };
}

function processProbe(options: ProbesOptions): ProbeOf<'process'> {
  return (check) => {
    const wanted = check.executable.replaceAll('{slot}', options.slotPath());
    let real: string;
    try {
      real = realpathSync(wanted);
    } catch (error) {
      return Promise.resolve({ ok: false, detail: `${wanted}: ${errnoText(error)}` });
    }
    const pids = listPids().filter((pid) => executableOf(pid) === real);
    return Promise.resolve({
      ok: pids.length > 0,
      detail:
        pids.length > 0
          ? `${real} runs as ${pids.slice(0, 8).join(', ')}`
          : `no process runs ${real}`,
    });
  };
}

function executableOf(pid: number): string | null {
  try {
    return readlinkSync(`/proc/${pid}/exe`);
  } catch {
    // Ended meanwhile, or a thread of the kernel.
    return null;
  }
}

function fileProbe(options: ProbesOptions): ProbeOf<'file'> {
  return (check) => {
    const path = check.path.replaceAll('{slot}', options.slotPath());
    try {
      const { mtimeMs } = statSync(path);
      if (check.maxAgeMs === undefined)
        return Promise.resolve({ ok: true, detail: `${path} is there` });
      const ageMs = Math.round(options.wallMs() - mtimeMs);
      return Promise.resolve({
        ok: ageMs <= check.maxAgeMs,
        detail: `${path} is ${ageMs} ms old, at most ${check.maxAgeMs} ms are allowed`,
      });
    } catch (error) {
      return Promise.resolve({ ok: false, detail: `${path}: ${errnoText(error)}` });
    }
  };
}

const errnoText = (error: unknown): string =>
  error instanceof Error && 'code' in error ? String(error.code) : String(error);
