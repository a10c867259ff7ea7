#!/usr/bin/env node
/** `switchback-agent`: the composition root. The daemon is agent/daemon.ts, the commands are agent/cli. */
import { readFileSync, statSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { runCli } from './cli/main.ts';
import type { CliParts } from './cli/command.ts';
import { scrubEnvironment } from './adapters/environment.ts';

/** Put in by packaging/build.ts. The source tree, where nothing was put in, reads its package.json. */
declare const SWITCHBACK_BUILD: Origin | undefined;

interface Origin {
  readonly version: string;
  readonly builtAtMs: number;
}

function origin(): Origin {
  if (typeof SWITCHBACK_BUILD !== 'undefined') return SWITCHBACK_BUILD;
  const packageFile = fileURLToPath(new URL('../package.json', import.meta.url));
  const parsed: unknown = JSON.parse(readFileSync(packageFile, 'utf8'));
  const version =
    typeof parsed === 'object' && parsed !== null && 'version' in parsed ? parsed.version : null;
  if (typeof version !== 'string') throw new Error(`${packageFile} has no version`);
  return { version, builtAtMs: Math.floor(statSync(packageFile).mtimeMs) };
}

const { version, builtAtMs } = origin();
const parts: CliParts = {
  version,
  async runDaemon({ settings }, { once }) {
    // Loaded only for the daemon: commands start faster and need less memory without it.
    const { runAgent } = await import('./daemon.ts');
    const end = new AbortController();
    const stop = (): void => end.abort();
    process.on('SIGTERM', stop);
    process.on('SIGINT', stop);
    return await runAgent(settings, { version, builtAtMs, once }, end.signal);
  },
  async verifyLive(settings) {
    const { verifyLive } = await import('./verify-live.ts');
    return await verifyLive(settings);
  },
};

/** `agent tuf`: the conformance client keeps its environment, in which the suite sets the time. */
async function runTuf(args: readonly string[]): Promise<number> {
  const { runTufCli } = await import('./tuf-cli.ts');
  return await runTufCli(args, {
    nowMs: () => Date.now(),
    printError: (line) => process.stderr.write(`${line}\n`),
  });
}

const args = process.argv.slice(2);
if (args[0] === 'tuf') process.exitCode = await runTuf(args.slice(1));
else {
  scrubEnvironment();
  process.exitCode = await runCli(args, parts);
}
