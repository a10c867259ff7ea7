/** What polls say of the reports: the numbers of what control really has, not of what was tried. */
import { expect, it } from 'vitest';
import { initialState, type State } from '#/agent/core/state.ts';
import type { StateStore } from '#/agent/ports.ts';
import { createReporter, type Reporter } from '#/agent/reporter.ts';
import type { Envelope, ReportDocument } from '#/protocol/documents.ts';
import { Problem } from '#/protocol/errors.ts';
import type { ArtifactId, GroupName, HostId } from '#/protocol/ids.ts';

interface Play {
  readonly facts: () => Record<string, string>;
  /** The answer of control to its nth report, from 1. */
  readonly answer: (count: number, reporter: Reporter) => { readonly wantFacts: boolean };
  /** Before each pause; answers so far. */
  readonly onPause: (reporter: Reporter, answers: number, end: AbortController) => void;
  /** By default the runner has started. */
  readonly begin?: (reporter: Reporter) => void;
  readonly state?: () => State;
}

/** Runs a reporter until `onPause` ends it; resolves with what control got. */
async function play({
  facts,
  answer,
  onPause,
  begin,
  state,
}: Play): Promise<readonly ReportDocument[]> {
  const got: ReportDocument[] = [];
  const end = new AbortController();
  let seq = 6;
  let answers = 0;
  const reporter = createReporter({
    clock: {
      wallMs: () => 0,
      monotonicMs: () => 0,
      bootId: () => 'boot',
      sleep: async (_ms, signal) => {
        onPause(reporter, answers, end);
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
      async report(envelope: Envelope) {
        answers += 1;
        const { wantFacts } = answer(answers, reporter);
        const document = envelope as unknown as ReportDocument;
        got.push(document);
        return { ackSeq: document.seq, wantFacts };
      },
    },
    identity: {
      host: `h-${'1'.repeat(32)}` as HostId,
      group: 'web' as GroupName,
      class: 'web',
      sign: (_type, payload) => JSON.parse(Buffer.from(payload).toString()) as never,
    },
    agentVersion: '0.1.0',
    state: state ?? initialState,
    hostFacts: async () => facts(),
    onStoreFailed: () => undefined,
    onRewound: () => undefined,
    onFailure: () => undefined,
  });
  if (begin === undefined) reporter.poke();
  else begin(reporter);
  // A reporter with nothing more to say waits for ever.
  const idle = setTimeout(() => end.abort(), 1_000);
  await reporter.run(end.signal);
  clearTimeout(idle);
  return got;
}

/** A reporter whose control refuses the first report: what it says of its reports at each pause. */
async function toldAfter(facts: () => Record<string, string>): Promise<readonly unknown[]> {
  const seen: unknown[] = [];
  await play({
    facts,
    answer(count) {
      if (count === 1) throw new Problem('E_NETWORK', 'away');
      return { wantFacts: true };
    },
    onPause(reporter, answers, end) {
      seen.push(reporter.told());
      if (answers === 4) end.abort();
    },
  });
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

it('facts that change while a report is on its way are in the next one', async () => {
  let code = '';
  let pauses = 0;
  const got = await play({
    facts: () => ({ trustCode: code }),
    answer(count, reporter) {
      if (count === 1) {
        code = 'E_HTTP';
        reporter.tellFacts();
      }
      return { wantFacts: false };
    },
    onPause(_reporter, answers, end) {
      pauses += 1;
      if (pauses === 5) end.abort();
      expect(answers).toBeLessThan(3);
    },
  });
  expect(got.map(({ facts }) => facts?.['trustCode'])).toEqual(['', 'E_HTTP']);
});

it('says nothing before the runner has read what is on the disk, whatever else has news', async () => {
  const running = `${'a'.repeat(64)}` as ArtifactId;
  let state = initialState();
  const got = await play({
    facts: () => ({ trustCode: '' }),
    answer: () => ({ wantFacts: false }),
    onPause(_reporter, answers, end) {
      if (answers === 1) end.abort();
    },
    begin(reporter) {
      reporter.tellFacts();
      reporter.tellAll();
      setTimeout(() => {
        state = { ...state, known: { ...state.known, artifactId: running } };
        reporter.poke();
      }, 20);
    },
    state: () => state,
  });
  expect(got.map((report) => [report.running, report.facts !== undefined])).toEqual([
    [running, true],
  ]);
});
