/** The state store under calls that overlap: the runner's lanes and the reporter know nothing of one another. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { nodeFiles } from '#/agent/adapters/file-port.ts';
import { openStateStore } from '#/agent/adapters/state-store.ts';
import type { PendingReport } from '#/agent/core/effect.ts';
import { initialState } from '#/agent/core/state.ts';
import type { ArtifactId } from '#/protocol/ids.ts';

let directory: string;
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'state-store-'));
});
afterEach(() => rmSync(directory, { recursive: true, force: true }));

const report = (n: number): PendingReport => ({
  key: `attempt.${n}`,
  attempt: 'a'.repeat(32),
  rolloutId: null,
  artifactId: 'b'.repeat(64) as ArtifactId,
  phase: 'downloading',
  code: null,
  message: '',
  atWallMs: 1,
  evidence: {},
});

it('F57 the same report put into the outbox twice at once is there once, and no write fails', async () => {
  const store = openStateStore({ files: nodeFiles(), directory });
  expect((await store.load()).writable).toBe(true);
  const entry = {
    bootId: 'x',
    monotonicMs: 1,
    wallMs: 1,
    event: 'ticked',
    from: 'idle',
    to: 'idle',
  } as const;
  const writes = Array.from({ length: 20 }, (_, n) => [
    store.addReport(report(n % 5)),
    store.append({ ...entry, state: initialState() }),
    store.takeReportSequence(),
  ]);
  await Promise.all(writes.flat());
  expect(store.waitingReports(100).length).toBe(5);
  expect(await store.takeReportSequence()).toBe(21);
  await store.close();
});

it('F57 a report that is acknowledged while others are added takes none of them along', async () => {
  const store = openStateStore({ files: nodeFiles(), directory });
  await store.load();
  await store.addReport(report(0));
  const [first] = store.waitingReports(1);
  await Promise.all([
    store.addReport(report(1)),
    store.acknowledgeReports([first?.id ?? '']),
    store.addReport(report(2)),
  ]);
  expect(store.waitingReports(100).length).toBe(2);
  await store.close();
});
