/** What polls say of the reports: the numbers of what control really has, not of what was tried. */
import { expect, it } from 'vitest';
import { initialState } from '#/agent/core/state.ts';
import type { StateStore } from '#/agent/ports.ts';
import { createReporter } from '#/agent/reporter.ts';
import type { ReportDocument } from '#/protocol/documents.ts';
import { Problem } from '#/protocol/errors.ts';
import type { GroupName, HostId } from '#/protocol/ids.ts';

/** A reporter whose control refuses the first report; `steps` looks at it after each answer. */
async function toldAfter(facts: () => Record<string, string>): Promise<readonly unknown[]> {
  const seen: unknown[] = [];
  const end = new AbortController();
  let seq = 6;
  let answers = 0;
  const reporter = createReporter({
    clock: {
      wallMs: () => 0,
      monotonicMs: () => 0,
      bootId: () => 'boot',
      sleep: async (_ms, signal) => {
        seen.push(reporter.told());
        if (answers === 4) end.abort();
        return signal?.aborted !== true;
      },
    },
    random: { hex: () => '', unit: () => 0 },
    store: {
      waitingReports: () => [],
      takeReportSequence: async () => (seq += 1),
      acknowledgeReports: async () => undefined,
    } as unknown as StateStore,
    control: {
      poll: () => Promise.reject(new Error('not asked')),
      async report(envelope) {
        answers += 1;
        if (answers === 1) throw new Problem('E_NETWORK', 'away');
        const document = envelope as unknown as ReportDocument;
        return { ackSeq: document.seq, wantFacts: true };
      },
    },
    identity: {
      host: `h-${'1'.repeat(32)}` as HostId,
      group: 'web' as GroupName,
      class: 'web',
      sign: (_type, payload) => JSON.parse(Buffer.from(payload).toString()) as never,
    },
    agentVersion: '0.1.0',
    state: initialState,
    hostFacts: async () => facts(),
    onStoreFailed: () => undefined,
    onRewound: () => undefined,
    onFailure: () => undefined,
  });
  reporter.poke();
  await Promise.race([
    reporter.run(end.signal),
    new Promise((done) => end.signal.addEventListener('abort', done)),
  ]);
  return seen;
}

it('a report that did not get through is not counted in the polls; facts count by their digest', async () => {
  let looks = 0;
  const seen = await toldAfter(() => ({ kernel: ++looks > 2 ? 'newer' : 'old', arch: 'amd64' }));
  expect(seen[0]).toEqual({ seq: 0, factsHash: null });
  // 7 was lost on the way; 8 has the same facts as it.
  expect(seen[1]).toEqual({ seq: 0, factsHash: null });
  const numbers = seen.map((one) => (one as { seq: number }).seq);
  expect([...new Set(numbers)]).toEqual([0, 8, 9, 10]);
  const digests = seen.map((one) => (one as { factsHash: string | null }).factsHash);
  expect(new Set(digests.filter((one) => one !== null)).size).toBe(2);
  expect(digests.at(-1)).toMatch(/^[0-9a-f]{64}$/);
});
