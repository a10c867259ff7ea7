#!/usr/bin/env node
/** switchback-control: `init` makes a data directory, `serve` runs control on it. */
import { readFile } from 'node:fs/promises';
import { parseArgs } from 'node:util';
import { pino } from 'pino';
import { errors, isProblem, Problem } from '#/protocol/errors.ts';
import { checkBundle, checkPatch } from './bundle-check.ts';
import { adminTokenPath } from './data-dir.ts';
import { initControl, startControl, VERSION } from './start.ts';

const USAGE = `usage: switchback-control <command>

  init  --data DIR                     make keys, signed metadata and the admin token (again: no change)
  serve --data DIR [--listen HOST:PORT] [--public-url URL] [--tls-cert FILE --tls-key FILE]
        [--log-level LEVEL]            run control; the default address is 127.0.0.1:8420

  --version, --help

The admin token is printed once by init and kept in DIR/admin.token (mode 0600).
`;
const DEFAULT_LISTEN = '127.0.0.1:8420';

const optionSchema = {
  data: { type: 'string' },
  listen: { type: 'string', default: DEFAULT_LISTEN },
  'public-url': { type: 'string' },
  'tls-cert': { type: 'string' },
  'tls-key': { type: 'string' },
  'log-level': { type: 'string', default: 'info' },
  help: { type: 'boolean', short: 'h' },
  version: { type: 'boolean' },
} as const;

interface Arguments {
  readonly command: string | undefined;
  readonly values: ReturnType<typeof parseArgs<{ options: typeof optionSchema }>>['values'];
}

function readArguments(argv: readonly string[]): Arguments {
  try {
    const { values, positionals } = parseArgs({
      args: [...argv],
      options: optionSchema,
      allowPositionals: true,
      strict: true,
    });
    if (positionals.length > 1) throw new Error(`unexpected argument ${positionals[1] ?? ''}`);
    return { command: positionals[0], values };
  } catch (cause) {
    throw new Problem('E_USAGE', (cause as Error).message, {}, { cause });
  }
}

function listenAddress(text: string): { host: string; port: number } {
  const match = /^(?:\[([0-9a-fA-F:]+)\]|([^:]*)):(\d{1,5})$/.exec(text);
  const port = Number(match?.[3]);
  if (match === null || port > 65_535)
    throw new Problem('E_USAGE', `--listen ${text}: expected HOST:PORT`);
  return { host: match[1] ?? (match[2] === '' ? '::' : (match[2] ?? '')), port };
}

async function tlsOf(
  values: Arguments['values'],
): Promise<{ cert: string; key: string } | undefined> {
  const { 'tls-cert': cert, 'tls-key': key } = values;
  if (cert === undefined && key === undefined) return undefined;
  if (cert === undefined || key === undefined)
    throw new Problem('E_USAGE', '--tls-cert and --tls-key go together');
  try {
    return { cert: await readFile(cert, 'utf8'), key: await readFile(key, 'utf8') };
  } catch (cause) {
    throw new Problem(
      'E_CONFIG',
      `cannot read the TLS files: ${(cause as Error).message}`,
      {},
      { cause },
    );
  }
}

async function serve(dataDir: string, values: Arguments['values']): Promise<void> {
  const { host, port } = listenAddress(values.listen);
  const tls = await tlsOf(values);
  const publicUrl = values['public-url'];
  const log = pino(
    {
      level: values['log-level'],
      base: null,
      timestamp: pino.stdTimeFunctions.isoTime,
      formatters: { level: (label) => ({ level: label }) },
      redact: ['authorization', 'token', '*.token', '*.authorization'],
    },
    pino.destination({ fd: 1, sync: true }),
  );
  const control = await startControl({
    dataDir,
    host,
    port,
    log,
    verifyBundle: checkBundle,
    verifyPatch: checkPatch,
    ...(tls === undefined ? {} : { tls }),
    ...(publicUrl === undefined ? {} : { publicUrl }),
  });
  const { promise, resolve } = Promise.withResolvers<NodeJS.Signals>();
  process.once('SIGTERM', resolve);
  process.once('SIGINT', resolve);
  const signal = await promise;
  log.info({ component: 'control', event: 'stopping', signal }, `stopping on ${signal}`);
  await control.stop();
}

async function run(argv: readonly string[]): Promise<number> {
  const { command, values } = readArguments(argv);
  if (values.version === true) process.stdout.write(`${VERSION}\n`);
  else if (values.help === true) process.stdout.write(USAGE);
  else {
    if (command !== 'init' && command !== 'serve')
      throw new Problem(
        'E_USAGE',
        `${command === undefined ? 'no command' : `unknown command ${command}`}; see --help`,
      );
    const dataDir = values.data;
    if (dataDir === undefined) throw new Problem('E_USAGE', '--data DIR is missing');
    if (command === 'serve') await serve(dataDir, values);
    else {
      const token = await initControl(dataDir);
      const path = adminTokenPath(dataDir);
      process.stdout.write(
        token === null ? `nothing to do; the admin token is in ${path}\n` : `${token}\n`,
      );
    }
  }
  return 0;
}

try {
  process.exitCode = await run(process.argv.slice(2));
} catch (error) {
  if (!isProblem(error)) throw error;
  process.stderr.write(
    `switchback-control: ${error.message} (${error.code})\n${errors[error.code].act}\n`,
  );
  process.exitCode = errors[error.code].exit;
}
