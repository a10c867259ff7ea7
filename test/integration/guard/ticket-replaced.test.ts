import { execFile, spawn, type ChildProcess } from 'node:child_process';
import { mkdirSync, mkdtempSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setImmediate as turn } from 'node:timers/promises';
import { promisify } from 'node:util';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { nodeFiles } from '#/agent/adapters/file-port.ts';
import { guardFiles } from '#/agent/adapters/guard-files.ts';
import { encodeTicket } from '#/agent/adapters/ticket.ts';
import type { Ticket } from '#/agent/core/ticket.ts';
import { NEW, openTicket } from '#/test/support/guard-ticket.ts';

const GUARD = join(import.meta.dirname, '../../../packaging/guard/switchback-guard');
const ROUNDS = 40;

let base = '';
let agent: ChildProcess | null = null;

beforeEach(async () => {
  base = mkdtempSync(join(tmpdir(), 'switchback-guard-'));
  for (const name of ['state', 'run', `slots/releases/${NEW}`])
    mkdirSync(join(base, name), { recursive: true });
  const stateDirectory = join(base, 'state');
  const guard = guardFiles({
    files: nodeFiles(),
    stateDirectory,
    runDirectory: join(base, 'run'),
    slotsRoot: join(base, 'slots'),
    heartbeatLostMs: 600_000,
    slotPath: (slot) => join(base, 'slots/releases', slot),
  });
  await guard.settle();
  // What lives holds the lock.
  agent = spawn(
    'flock',
    ['--no-fork', join(stateDirectory, 'lock'), 'sh', '-c', 'echo held; exec sleep 600'],
    {
      stdio: ['ignore', 'pipe', 'inherit'],
    },
  );
  await new Promise((resolve) => agent?.stdout?.once('data', resolve));
});
afterEach(() => {
  agent?.kill('SIGKILL');
  rmSync(base, { recursive: true });
});

const ticket = (change: Partial<Ticket>): Uint8Array =>
  encodeTicket(openTicket(join(base, 'slots/releases', NEW), change));

describe('guard: an agent that lives replaces the ticket while it is read', () => {
  it('it is one of them or none, never damaged, and nothing is taken back', async () => {
    const path = join(base, 'state/ticket');
    const kept = [ticket({}), ticket({ bootsUsed: 1 }), ticket({ state: 'committed' }), null];
    let isOver = false;
    const replacing = (async () => {
      for (let n = 0; !isOver; n += 1) {
        const next = kept[n % kept.length] ?? null;
        if (next === null) rmSync(path, { force: true });
        else {
          writeFileSync(`${path}.new`, next);
          renameSync(`${path}.new`, path);
        }
        await turn();
      }
    })();
    const said: string[] = [];
    for (let round = 0; round < ROUNDS; round += 1) {
      const result = await promisify(execFile)('/bin/sh', [GUARD, 'round', join(base, 'state')])
        .then(({ stderr }) => stderr)
        .catch((error: unknown) => String(error));
      said.push(result);
    }
    isOver = true;
    await replacing;
    expect(said).toEqual(Array.from({ length: ROUNDS }, () => ''));
  });
});
