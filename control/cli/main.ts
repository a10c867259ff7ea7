#!/usr/bin/env node
/** The operator's program: builds the context of the real process and runs one command line. */
import { randomBytes } from 'node:crypto';
import { setTimeout as delay } from 'node:timers/promises';
import type { CliContext, Output } from '#/control/cli/context.ts';
import { run } from '#/control/cli/run.ts';

const COLUMNS_UNKNOWN = 80;
const ROWS_UNKNOWN = 24;

function outputOf(stream: NodeJS.WriteStream): Output {
  return {
    write: (text) => {
      stream.write(text);
    },
    isTty: stream.isTTY,
    get columns() {
      return stream.columns || COLUMNS_UNKNOWN;
    },
    get rows() {
      return stream.rows || ROWS_UNKNOWN;
    },
  };
}

const stop = new AbortController();
const onSignal = (): void => {
  // A second Ctrl-C is not held back.
  process.off('SIGINT', onSignal);
  process.off('SIGTERM', onSignal);
  stop.abort();
};
process.on('SIGINT', onSignal);
process.on('SIGTERM', onSignal);
// `switchback host ls | head` closes our stdout early: that is not an error.
process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  if (error.code === 'EPIPE') process.exit(0);
  throw error;
});

const context: CliContext = {
  env: process.env,
  cwd: process.cwd(),
  out: outputOf(process.stdout),
  err: outputOf(process.stderr),
  now: () => Date.now(),
  sleep: async (ms) => {
    try {
      await delay(ms, undefined, { signal: stop.signal });
    } catch (error) {
      if (!stop.signal.aborted) throw error;
    }
  },
  signal: stop.signal,
  randomHex: (bytes) => randomBytes(bytes).toString('hex'),
};

process.exitCode = await run(process.argv.slice(2), context);
