/** `switchback serve`: control, in this process, until Ctrl-C or SIGTERM. */
import { resolve } from 'node:path';
import { Option } from 'commander';
import type { CliContext } from '#/control/cli/context.ts';
import { DEFAULT_LISTEN } from '#/control/cli/commands/init.ts';
import { addCommand, type DescribedCommand } from '#/control/cli/describe.ts';
import { listenAddress, readServeSettings } from '#/control/cli/fleet-files.ts';
import { readText } from '#/control/cli/files.ts';
import { openSession } from '#/control/cli/session.ts';
import { Problem } from '#/protocol/errors.ts';

const PEM_MAX_BYTES = 256 * 1024;
const levels = ['trace', 'debug', 'info', 'warn', 'error'] as const;

interface ServeFlags {
  readonly data: string;
  readonly listen?: string;
  readonly publicUrl?: string;
  readonly tlsCert?: string;
  readonly tlsKey?: string;
  readonly logLevel: (typeof levels)[number];
}

export function addServeCommand(program: DescribedCommand, context: CliContext): void {
  const command = addCommand(
    program,
    'serve',
    'Run control on the data that init made, until Ctrl-C.',
  );
  command
    .requiredOption('--data <dir>', 'directory with the data of control')
    .option('--listen <address>', 'HOST:PORT, instead of what init was told')
    .option(
      '--public-url <url>',
      'address of control as hosts see it, instead of what init was told',
    )
    .option('--tls-cert <file>', 'serve TLS with this certificate chain (PEM)')
    .option('--tls-key <file>', 'and this key (PEM)')
    .addOption(
      new Option('--log-level <level>', 'least level of log lines').choices(levels).default('info'),
    )
    .explain(
      [
        'switchback serve --data ~/fleet',
        'switchback serve --data ~/fleet --tls-cert chain.pem --tls-key key.pem',
      ],
      'nothing; the log on standard output is JSON lines in either case',
    )
    .action(async () => {
      const session = openSession(context, command);
      const flags = command.opts<ServeFlags>();
      const dataDir = resolve(context.cwd, flags.data);
      const saved = await readServeSettings(dataDir);
      const { host, port } = listenAddress(flags.listen ?? saved?.listen ?? DEFAULT_LISTEN);
      const publicUrl = flags.publicUrl ?? saved?.publicUrl ?? null;
      const tls = await tlsOf(flags, context);
      const { startControl } = await import('#/control/start.ts');
      const { checkBundle, checkPatch } = await import('#/control/bundle-check.ts');
      const control = await startControl({
        dataDir,
        host,
        port,
        log: await createLog(flags.logLevel),
        verifyBundle: checkBundle,
        verifyPatch: checkPatch,
        ...(publicUrl === null ? {} : { publicUrl }),
        ...(tls === null ? {} : { tls }),
      });
      session.note(`control answers at ${control.url}; Ctrl-C ends it`);
      await stopRequested(context.signal);
      await control.stop();
    });
}

async function tlsOf(
  flags: ServeFlags,
  context: CliContext,
): Promise<{ readonly cert: string; readonly key: string } | null> {
  const { tlsCert, tlsKey } = flags;
  if (tlsCert === undefined && tlsKey === undefined) return null;
  if (tlsCert === undefined || tlsKey === undefined) {
    throw new Problem('E_USAGE', '--tls-cert and --tls-key belong together');
  }
  return {
    cert: await readText(resolve(context.cwd, tlsCert), PEM_MAX_BYTES),
    key: await readText(resolve(context.cwd, tlsKey), PEM_MAX_BYTES),
  };
}

function stopRequested(signal: AbortSignal): Promise<void> {
  if (signal.aborted) return Promise.resolve();
  return new Promise((done) => {
    signal.addEventListener('abort', () => done(), { once: true });
  });
}

/** The same lines as those of switchback-control. */
async function createLog(level: ServeFlags['logLevel']): Promise<import('pino').Logger> {
  const { pino } = await import('pino');
  return pino(
    {
      level,
      base: null,
      timestamp: pino.stdTimeFunctions.isoTime,
      formatters: { level: (label) => ({ level: label }) },
      redact: ['authorization', 'token', '*.token', '*.authorization'],
    },
    pino.destination({ fd: 1, sync: true }),
  );
}
