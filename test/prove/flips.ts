/**
 * Bit rot: every bit of the bytes of a state file, a slot record and a journal, turned over one at a time. What is read is what
 * was written or nothing, never something else. And a disk that takes only half of each write.
 */
import { decodeState, encodeState, type StateFormat } from '#/agent/adapters/state-file.ts';
import { readFile, replaceFile } from '#/agent/adapters/durable.ts';
import { openJournal, parseJournal } from '#/agent/adapters/journal.ts';
import { slotRecords } from '#/agent/adapters/slot-records.ts';
import { isProblem } from '#/protocol/errors.ts';
import { artifactId } from '#/protocol/ids.ts';
import { emptyImage } from '#/test/support/sim-fs/image.ts';
import { simFs } from '#/test/support/sim-fs/sim-fs.ts';
import * as v from 'valibot';
import type { Family, Finding } from './family.ts';

const LIMIT_BYTES = 4096;

export const bitRot: Family = {
  name: 'bit rot',
  what: 'every bit of a state file, a slot record and a journal flipped; writes cut short',
  async run() {
    const findings: Finding[] = [];
    let states = 0;
    const all = [
      stateFileFlips(),
      await journalFlips(),
      await slotRecordFlips(),
      await shortWrites(),
    ];
    for (const one of all) {
      states += one.tried;
      findings.push(...one.findings);
    }
    return { cases: all.length, states, findings };
  },
};

interface Tried {
  readonly tried: number;
  readonly findings: readonly Finding[];
}

function* flipsOf(bytes: Uint8Array): Generator<Uint8Array> {
  for (let bit = 0; bit < bytes.length * 8; bit += 1) {
    const flipped = Uint8Array.from(bytes);
    flipped[bit >> 3] = (flipped[bit >> 3] ?? 0) ^ (1 << (bit & 7));
    yield flipped;
  }
}

function wrong(text: string): readonly Finding[] {
  return [{ fault: 'wrong', text }];
}

function stateFileFlips(): Tried {
  const format: StateFormat<{ name: string; count: number }> = {
    kind: 'probe',
    version: 1,
    limitBytes: LIMIT_BYTES,
    schema: v.object({ name: v.string(), count: v.number() }),
  };
  let tried = 0;
  for (const bytes of flipsOf(encodeState(format, { name: 'a name', count: 12_345 }))) {
    tried += 1;
    try {
      const read = decodeState(format, 'probe', bytes);
      const isSame = read.name === 'a name' && read.count === 12_345;
      if (!isSame)
        return { tried, findings: wrong(`state file, flip ${tried}: ${JSON.stringify(read)}`) };
    } catch (error) {
      if (!isProblem(error, 'E_STATE')) throw error;
    }
  }
  return { tried, findings: [] };
}

async function journalFlips(): Promise<Tried> {
  const { files } = simFs(emptyImage());
  const journal = await openJournal(files, '/journal');
  for (let number = 0; number < 3; number += 1) {
    await journal.append({ bootId: 'boot', monotonicMs: number, wallMs: number, data: { number } });
  }
  const bytes = (await readFile(files, '/journal', LIMIT_BYTES)) ?? new Uint8Array();
  const whole = parseJournal(bytes).records.map((record) => JSON.stringify(record));
  let tried = 0;
  for (const flipped of flipsOf(bytes)) {
    tried += 1;
    const { records, damage } = parseJournal(flipped);
    const isPrefix = records.every((record, at) => JSON.stringify(record) === whole[at]);
    if (!isPrefix || damage === 'none') {
      return { tried, findings: wrong(`journal, flip ${tried}: ${JSON.stringify(records)}`) };
    }
  }
  return { tried, findings: [] };
}

async function slotRecordFlips(): Promise<Tried> {
  const { files } = simFs(emptyImage());
  const records = slotRecords(files, '/state');
  const id = v.parse(artifactId, 'a'.repeat(64));
  const made = { version: '1.0.0', release: 7, reason: null };
  const record = { slot: id, status: 'good', artifactId: id, ...made } as const;
  await records.write(record);
  const path = `/state/slots/${id}.json`;
  const bytes = (await readFile(files, path, LIMIT_BYTES)) ?? new Uint8Array();
  let tried = 0;
  for (const flipped of flipsOf(bytes)) {
    tried += 1;
    await replaceFile(files, path, flipped);
    const read = await records.read(id);
    if (read !== null) {
      return { tried, findings: wrong(`slot record, flip ${tried}: ${JSON.stringify(read)}`) };
    }
  }
  return { tried, findings: [] };
}

async function shortWrites(): Promise<Tried> {
  const { files } = simFs(emptyImage(), ({ name }) => (name === 'write' ? 'short' : null));
  const bytes = Buffer.from('a value of some length '.repeat(10));
  await replaceFile(files, '/file', bytes);
  const read = await readFile(files, '/file', LIMIT_BYTES);
  const isWhole = read !== null && bytes.equals(read);
  return { tried: 1, findings: isWhole ? [] : wrong(`short writes: ${read?.length} bytes`) };
}
