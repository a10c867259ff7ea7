import { createHash } from 'node:crypto';
import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { createBandwidth } from '#/agent/install/bandwidth.ts';
import {
  classifyEntry,
  directoryLayout,
  isDirectorySlot,
  linkTarget,
  slotOfLink,
} from '#/agent/install/layout.ts';
import { pathOf } from '#/agent/install/file-table.ts';
import { Meter } from '#/agent/install/meter.ts';
import { planSeed } from '#/agent/install/seed-plan.ts';
import { SLAB_BYTES, Slabs } from '#/agent/install/slabs.ts';
import { parseRetryAfter } from '#/agent/install/source-http.ts';
import type { TaskProgress } from '#/agent/install/task.ts';
import { mountPoints } from '#/agent/adapters/file-system.ts';
import { directoryTargets, PieceCollector, planWrites } from '#/agent/install/write-plan.ts';
import type { ChunkIndex } from '#/bundle/chunk-index.ts';
import type { Manifest } from '#/bundle/manifest.ts';
import type { TreeEntry } from '#/bundle/tree-entry.ts';
import { treeLayout } from '#/bundle/tree-layout.ts';

const hex = (text: string | Uint8Array): string => createHash('sha256').update(text).digest('hex');

/** An index and manifest of a tree with these files, cut into chunks of `chunkBytes`. */
function versionOf(
  files: Readonly<Record<string, string>>,
  chunkBytes: number,
): { index: ChunkIndex; manifest: Manifest } {
  const entries = Object.keys(files)
    .sort()
    .map((path): TreeEntry => {
      const text = files[path] ?? '';
      return {
        kind: 'file',
        path,
        mode: 0o644,
        uid: 0,
        gid: 0,
        sizeBytes: text.length,
        sha256: hex(text),
      };
    });
  const layout = treeLayout(entries);
  const stream = layout.contents
    .map(({ files: [file = 0] }) => files[entries[file]?.path ?? ''] ?? '')
    .join('');
  const raws: string[] = [];
  const chunks: number[] = [];
  const positions = [0];
  for (let at = 0; at < stream.length; at += chunkBytes) {
    const raw = stream.slice(at, at + chunkBytes);
    let number = raws.indexOf(raw);
    if (number < 0) number = raws.push(raw) - 1;
    chunks.push(number);
    positions.push(at + raw.length);
  }
  const index: ChunkIndex = {
    chunkCount: raws.length,
    digests: Buffer.concat(raws.map((raw) => createHash('sha256').update(raw).digest())),
    rawSizes: Uint32Array.from(raws, (raw) => raw.length),
    storedSizes: Uint32Array.from(raws, (raw) => raw.length),
    offsets: Float64Array.from([0, ...raws.map((_, i) => raws.slice(0, i + 1).join('').length)]),
    payloads: [
      {
        chunker: 'fastcdc-16k',
        pieceCount: chunks.length,
        chunks: Int32Array.from(chunks),
        positions: Float64Array.from(positions),
        streamBytes: stream.length,
        tree: { entries, layout, sha256: '' },
      },
    ],
  };
  const manifest = { payloads: [{ kind: 'tree', name: 'root' }] } as unknown as Manifest;
  return { index, manifest };
}

/** Puts the chunks where the plan says and gives the files. */
function materialise(
  version: ReturnType<typeof versionOf>,
  stream: (chunk: number) => string,
): Record<string, string> {
  const plan = planWrites(version.manifest, version.index, [{ kind: 'tree', path: '' }]);
  const files = plan.files.map(({ sizeBytes }) => Array.from({ length: sizeBytes }, () => '?'));
  const { starts, file, fileOffset, chunkOffset, sizeBytes } = plan.pieces;
  for (let chunk = 0; chunk < version.index.chunkCount; chunk += 1) {
    const raw = stream(chunk);
    for (let i = starts[chunk] ?? 0; i < (starts[chunk + 1] ?? 0); i += 1) {
      for (let at = 0; at < (sizeBytes[i] ?? 0); at += 1) {
        const into = files[file[i] ?? 0];
        if (into) into[(fileOffset[i] ?? 0) + at] = raw[(chunkOffset[i] ?? 0) + at] ?? '!';
      }
    }
  }
  return Object.fromEntries(
    plan.files.map(({ path }, i) => [path.slice(1), files[i]?.join('') ?? '']),
  );
}

const someFiles = fc.dictionary(
  fc.stringMatching(/^[a-z]{1,4}$/),
  fc.string({ unit: fc.constantFrom('a', 'b'), maxLength: 40 }),
  { minKeys: 1, maxKeys: 6, noNullPrototype: true },
);

function chunkTexts(files: Readonly<Record<string, string>>, index: ChunkIndex): string[] {
  const texts = new Map<string, string>();
  const streams = [index.payloads[0]].flatMap((payload) => {
    if (!payload?.tree) return [];
    const { entries, layout } = payload.tree;
    const stream = layout.contents
      .map(({ files: [file = 0] }) => files[entries[file]?.path ?? ''] ?? '')
      .join('');
    return Array.from(
      payload.chunks,
      (chunk, i) => [chunk, stream.slice(payload.positions[i], payload.positions[i + 1])] as const,
    );
  });
  for (const [chunk, text] of streams) texts.set(String(chunk), text);
  return Array.from({ length: index.chunkCount }, (_, i) => texts.get(String(i)) ?? '');
}

describe('write plan', () => {
  it('puts every byte of every file in its place, shared content and repeated chunks too', () => {
    fc.assert(
      fc.property(someFiles, fc.integer({ min: 1, max: 16 }), (files, chunkBytes) => {
        const version = versionOf(files, chunkBytes);
        const texts = chunkTexts(files, version.index);
        expect(materialise(version, (chunk) => texts[chunk] ?? '')).toEqual({ ...files });
      }),
    );
  });

  it('one tree is the slot itself, several payloads are entries of it', () => {
    const tree = { kind: 'tree', name: 'root' };
    const image = { kind: 'image', name: 'kernel' };
    const one = { payloads: [tree] } as unknown as Manifest;
    const two = { payloads: [tree, image] } as unknown as Manifest;
    expect(directoryTargets(one, '/s')).toEqual([{ kind: 'tree', path: '/s' }]);
    expect(directoryTargets(two, '/s')).toEqual([
      { kind: 'tree', path: '/s/root' },
      { kind: 'image', path: '/s/kernel.img' },
    ]);
  });

  it('pieces come out by chunk and offset, chunks without pieces are empty', () => {
    const pieces = new PieceCollector(4);
    pieces.add(3, 0, 0, 0, 1);
    pieces.add(1, 0, 9, 5, 1);
    pieces.add(1, 0, 4, 0, 5);
    const { starts, fileOffset } = pieces.done();
    expect([...starts]).toEqual([0, 0, 2, 2, 3]);
    expect([...fileOffset]).toEqual([4, 9, 0]);
  });
});

describe('seed plan', () => {
  it('finds each chunk that the seed holds, whole, and none that it does not', () => {
    fc.assert(
      fc.property(
        someFiles,
        someFiles,
        fc.integer({ min: 1, max: 8 }),
        (held, wanted, chunkBytes) => {
          const seed = versionOf(held, chunkBytes);
          const version = versionOf(wanted, chunkBytes);
          const { files, pieces } = planSeed(version.index, {
            ...seed,
            targets: [{ kind: 'tree', path: '/seed' }],
          });
          const seedTexts = new Set(chunkTexts(held, seed.index));
          for (const [chunk, text] of chunkTexts(wanted, version.index).entries()) {
            let found = '';
            for (let i = pieces.starts[chunk] ?? 0; i < (pieces.starts[chunk + 1] ?? 0); i += 1) {
              expect(pieces.chunkOffset[i]).toBe(found.length);
              const content = held[pathOf(files, pieces.file[i] ?? 0).slice('/seed/'.length)] ?? '';
              const from = pieces.fileOffset[i] ?? 0;
              found += content.slice(from, from + (pieces.sizeBytes[i] ?? 0));
            }
            expect(found).toBe(seedTexts.has(text) ? text : '');
          }
        },
      ),
    );
  });
});

describe('layout', () => {
  const slot = 'a'.repeat(64);
  it('F15 only artifact ids are slots', () => {
    expect(isDirectorySlot(slot)).toBe(true);
    for (const bad of ['', '..', slot.toUpperCase(), `${slot}/`, `${slot}\n`, slot.slice(1)]) {
      expect(isDirectorySlot(bad)).toBe(false);
    }
  });
  it('a link names a slot only with our own target', () => {
    expect(slotOfLink(linkTarget(slot))).toBe(slot);
    for (const foreign of [
      `/releases/${slot}`,
      `../releases/${slot}`,
      `releases/${slot}/bin`,
      slot,
    ]) {
      expect(slotOfLink(foreign)).toBeNull();
    }
  });
  it('entries of releases are told apart by their names', () => {
    const { staging, meta, condemned, release } = directoryLayout('/r');
    const name = (path: string): string => path.slice('/r/releases/'.length);
    expect(classifyEntry(name(release(slot)))).toEqual({ kind: 'release', slot });
    expect(classifyEntry(name(staging(slot)))).toEqual({ kind: 'staging', slot });
    expect(classifyEntry(name(meta(slot)))).toEqual({ kind: 'meta', slot });
    expect(classifyEntry(name(condemned(slot)))).toEqual({ kind: 'condemned', slot });
    for (const foreign of ['notes', '.tmp-x', `.x-${slot}`]) {
      expect(classifyEntry(foreign).kind).toBe('foreign');
    }
  });
});

describe('small parts', () => {
  it('progress never goes backwards and ends at the total', () => {
    const told: TaskProgress[] = [];
    let now = 0;
    const meter = new Meter(
      Uint32Array.from([10, 20, 30]),
      () => now,
      (step) => told.push(step),
    );
    meter.fetched(5);
    for (const chunk of [2, 0, 1]) {
      now += 1000;
      meter.stored([chunk]);
    }
    expect(told.map(({ doneBytes }) => doneBytes)).toEqual([0, 30, 40, 60]);
    expect(told.at(-1)?.totalBytes).toBe(60);
  });

  it('a bandwidth cap spreads bytes over time, whatever the number of connections', async () => {
    let now = 0;
    const cap = createBandwidth(
      { bandwidthBytesPerSecond: 1000 },
      () => now,
      async (ms) => {
        now += ms;
      },
    );
    const { signal } = new AbortController();
    for (let i = 0; i < 100; i += 1) await cap.take(100, signal);
    expect(now).toBeGreaterThanOrEqual(9_700);
    expect(now).toBeLessThanOrEqual(10_000);
  });

  it('a slab is handed to the one who waits, in order', async () => {
    const slabs = new Slabs(1);
    const held = await slabs.acquire();
    const order: string[] = [];
    const waiting = [slabs.acquire(), slabs.acquire()].map((slab, i) =>
      slab.then((got) => {
        order.push(`${i}`);
        expect(got.bytes.byteLength).toBe(SLAB_BYTES);
        slabs.release(got);
      }),
    );
    expect(order).toEqual([]);
    slabs.release(held);
    await Promise.all(waiting);
    expect(order).toEqual(['0', '1']);
  });

  it('Retry-After: seconds only, because the clock of the host may be wrong', () => {
    expect(parseRetryAfter('120')).toBe(120_000);
    for (const text of [null, '', '-1', '1.5', 'Wed, 21 Oct 2015 07:28:00 GMT', '99999999']) {
      expect(parseRetryAfter(text)).toBeNull();
    }
  });

  it('mount points with spaces are read', () => {
    const table =
      '36 35 98:0 / /mnt/a\\040b rw - ext4 /dev/x rw\n37 35 0:5 / /proc rw - proc proc rw\n';
    expect(mountPoints(table)).toEqual(['/mnt/a b', '/proc']);
  });
});
