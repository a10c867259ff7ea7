/** One flipped bit, anywhere in any state file: it is seen, and the host ends on one good version (H03, F30). */
import { beforeAll, describe, expect, it } from 'vitest';
import { slotRecords } from '#/agent/adapters/slot-records.ts';
import { replaceFile } from '#/agent/adapters/durable.ts';
import type { Image } from '#/test/support/sim-fs/image.ts';
import { emptyImage, listImage } from '#/test/support/sim-fs/image.ts';
import { simFs } from '#/test/support/sim-fs/sim-fs.ts';
import { diskProblems } from '#/test/support/sim-host/checks.ts';
import { scenarioCases, type ScenarioCase } from '#/test/support/sim-host/scenarios.ts';
import { runHost } from '#/test/support/sim-host/sim-host.ts';

/** Bits per file that are tried on a whole host; all of them with PROVE_LONG=1. */
const BITS_PER_FILE = process.env['PROVE_LONG'] === '1' ? Number.MAX_SAFE_INTEGER : 5;

function flipped(text: string, bit: number): string {
  const bytes = Buffer.from(text, 'latin1');
  bytes[bit >> 3] = (bytes[bit >> 3] ?? 0) ^ (1 << (bit & 7));
  return bytes.toString('latin1');
}

describe('H03 slot records', () => {
  it('no flipped bit makes another record: it is the same one or none', async () => {
    const { files } = simFs(emptyImage());
    const records = slotRecords(files, '/state');
    const id = 'a'.repeat(64) as never;
    const record = {
      slot: id,
      status: 'good',
      artifactId: id,
      version: '1.0.0',
      release: 7,
      reason: null,
    } as const;
    await records.write(record);
    const path = `/state/slots/${record.slot as string}.json`;
    const handle = await files.open(path, 'read');
    const buffer = new Uint8Array(4096);
    const text = Buffer.from(buffer.subarray(0, await handle.read(buffer, 0))).toString('latin1');
    await handle.close();
    for (let bit = 0; bit < text.length * 8; bit += 1) {
      await replaceFile(files, path, Buffer.from(flipped(text, bit), 'latin1'));
      expect([bit, await records.read(id)]).toEqual([bit, null]);
    }
    await replaceFile(files, path, Buffer.from(text, 'latin1'));
    expect(await records.read(id)).toEqual(record);
  });
});

describe('H03 F30 a host with one flipped bit', () => {
  let cases: readonly ScenarioCase[];
  beforeAll(async () => {
    const all = await scenarioCases();
    cases = all.filter((one) => /install and commit|unhealthy version goes back/.test(one.title));
  });

  /** The disk with one bit of one file changed. */
  async function withFlip(image: Image, path: string, bit: number): Promise<Image> {
    const sim = simFs(image);
    const before = listImage(image).get(path) ?? '';
    await replaceFile(sim.files, path, Buffer.from(flipped(before, bit), 'latin1'));
    return sim.image();
  }

  it('in any state file at rest or in the middle of an update: one good version at the end', async () => {
    let tried = 0;
    for (const one of cases) {
      for (const stopAfterSteps of [10, 18, 26]) {
        const run = await runHost(one.disk, one.world, { ...one.scenario, stopAfterSteps }, 5);
        const image = run.sim.image();
        const paths = [...listImage(image)].filter(
          ([path, text]) => path.startsWith('/state/') && text !== '/' && text !== '',
        );
        for (const [path, text] of paths) {
          const bits = text.length * 8;
          const stride = Math.max(1, Math.floor(bits / BITS_PER_FILE));
          for (let bit = tried % stride; bit < bits; bit += stride) {
            const base = await withFlip(image, path, bit);
            const world = {
              ...run.world,
              boot: run.world.boot + 1,
              monotonicMs: 9_000,
              active: null,
            };
            const end = await runHost({ base, log: [] }, world, one.scenario, 6);
            const what = diskProblems(end.sim.image(), one.scenario.versions, false);
            expect([path, bit, end.ended, ...what]).toEqual([path, bit, 'rest']);
            // What it says it runs is what runs.
            if (end.state.at === 'idle') expect(end.world.active).toBe(end.state.known.artifactId);
            tried += 1;
          }
        }
      }
    }
    expect(tried).toBeGreaterThan(100);
  });
});
