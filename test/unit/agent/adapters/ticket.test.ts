import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { cksum, decodeTicket, encodeTicket, ticketFile } from '#/agent/adapters/ticket.ts';
import { TICKET_SCHEMA, type Ticket } from '#/agent/core/ticket.ts';
import type { ArtifactId } from '#/protocol/ids.ts';
import { emptyImage } from '#/test/support/sim-fs/image.ts';
import { simFs } from '#/test/support/sim-fs/sim-fs.ts';

const id = (digit: string): ArtifactId => digit.repeat(64) as ArtifactId;
const ticket: Ticket = {
  schema: TICKET_SCHEMA,
  attempt: 'a'.repeat(32),
  kind: 'install',
  rolloutId: null,
  artifactId: id('1'),
  version: '1.2.0',
  class: 'web',
  release: 7,
  retryGeneration: 1,
  targetSlot: id('1'),
  targetIdentity: `/srv/app/releases/${id('1')}`,
  rollbackSlot: id('0'),
  rollbackArtifact: id('0'),
  state: 'open',
  reason: null,
  maxBoots: 2,
  bootsUsed: 1,
  armBootId: 'b00',
  lastBootId: 'b01',
  deadlineRunMs: 600_000,
  clock: { runMs: 1234, bootId: 'b01', monotonicMs: 99 },
  plan: {
    soakMs: 1,
    deadlineMs: 2,
    maxBoots: 2,
    control: 'offline-ok',
    oneWay: true,
    checks: [
      {
        name: 'port',
        required: true,
        timeoutMs: 1,
        intervalMs: 2,
        successesNeeded: 3,
        failuresAllowed: 4,
        baseline: 'must-pass',
        startAfterMs: 5,
      },
    ],
  },
  baselinePassed: ['port'],
};

/** What the guard does: checks the sum, reads a key. */
const shell = `
  [ "$(sed '$d' "$1" | cksum)" = "$(sed -n '$s/^cksum=//p' "$1")" ] || { echo damaged; exit 0; }
  sed -n "s/^$2=//p" "$1"
`;

function inShell(bytes: Uint8Array, key: string): string {
  const directory = mkdtempSync(join(tmpdir(), 'ticket-'));
  try {
    writeFileSync(join(directory, 'ticket'), bytes);
    const args = ['-c', shell, 'sh', join(directory, 'ticket'), key];
    return execFileSync('sh', args, { encoding: 'utf8' }).trim();
  } finally {
    rmSync(directory, { recursive: true });
  }
}

describe('ticket file', () => {
  it('reads back every field, also the empty ones', () => {
    expect(decodeTicket(encodeTicket(ticket))).toEqual(ticket);
    const first: Ticket = {
      ...ticket,
      rollbackSlot: null,
      rollbackArtifact: null,
      state: 'rolling-back',
      reason: { code: 'E_UNHEALTHY', message: 'port = closed' },
      plan: { ...ticket.plan, oneWay: false },
    };
    expect(decodeTicket(encodeTicket(first))).toEqual(first);
  });

  it('a POSIX shell checks the sum with cksum and reads a key with sed', () => {
    const bytes = encodeTicket(ticket);
    expect(inShell(bytes, 'rollback_slot')).toBe(id('0'));
    expect(inShell(bytes, 'boots_used')).toBe('1');
    const altered = Buffer.from(bytes);
    altered[40] = (altered[40] ?? 0) ^ 1;
    expect(inShell(altered, 'boots_used')).toBe('damaged');
    expect(inShell(bytes.subarray(0, bytes.length - 10), 'boots_used')).toBe('damaged');
  });

  it('what a shell rewrites is read by the agent', () => {
    const directory = mkdtempSync(join(tmpdir(), 'ticket-'));
    try {
      const path = join(directory, 'ticket');
      writeFileSync(path, encodeTicket(ticket));
      const rewrite = `sed '$d' "$1" | sed 's/^boots_used=.*/boots_used=2/; s/^state=.*/state=rolling-back/' > "$1.n"
        printf 'cksum=%s\\n' "$(cksum < "$1.n")" >> "$1.n"; cat "$1.n"`;
      const bytes = execFileSync('sh', ['-c', rewrite, 'sh', path]);
      expect(decodeTicket(bytes)).toEqual({ ...ticket, bootsUsed: 2, state: 'rolling-back' });
    } finally {
      rmSync(directory, { recursive: true });
    }
  });

  it('F30 any flipped bit and any cut makes it damaged, never another ticket', () => {
    const bytes = encodeTicket(ticket);
    for (let bit = 0; bit < bytes.length * 8; bit += 1) {
      const altered = Buffer.from(bytes);
      altered[bit >> 3] = (altered[bit >> 3] ?? 0) ^ (1 << (bit & 7));
      expect(decodeTicket(altered)).toBeNull();
    }
    for (let length = 0; length < bytes.length; length += 1) {
      expect(decodeTicket(bytes.subarray(0, length))).toBeNull();
    }
  });

  it('a line break in a message cannot add a key', () => {
    const reason = { code: 'E_HOOK', message: 'x\nboots_used=0\r\nstate=committed' };
    const read = decodeTicket(encodeTicket({ ...ticket, reason }));
    expect(read?.bootsUsed).toBe(1);
    expect(read?.reason?.message).toBe('x boots_used=0 state=committed');
  });

  it('knows nothing from damaged, and damaged from a ticket', async () => {
    const { files } = simFs(emptyImage());
    const file = ticketFile(files, '/ticket');
    expect(await file.read()).toBeNull();
    await file.write(ticket);
    expect(await file.read()).toEqual(ticket);
    const handle = await files.open('/ticket', 'append');
    await handle.truncate(100);
    expect(await file.read()).toBe('damaged');
    await handle.truncate(1024 * 1024);
    expect(await file.read()).toBe('damaged');
    await file.remove();
    expect(await file.read()).toBeNull();
  });

  it('cksum is that of POSIX', () => {
    for (const text of ['', 'a', 'hello\n', 'x'.repeat(1000)]) {
      const said = execFileSync('cksum', { input: text, encoding: 'utf8' });
      expect(`${cksum(Buffer.from(text))} ${text.length}`).toBe(said.trim());
    }
  });
});
