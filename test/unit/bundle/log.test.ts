/** The Merkle tree against the roots of Certificate Transparency and exhaustively for small trees; tiles, checkpoints, proofs. */
import { describe, expect, it } from 'vitest';
import { openCheckpoint, signCheckpoint, type TreeHead } from '#/bundle/log/checkpoint.ts';
import { entryBytes, packEntries, readEntry, unpackEntries } from '#/bundle/log/entry.ts';
import {
  consistencyProof,
  emptyRoot,
  inclusionProof,
  isConsistent,
  isIncluded,
  leafHash,
  rootAt,
} from '#/bundle/log/merkle.ts';
import { formatProof, parseProof, verifyProof } from '#/bundle/log/proof.ts';
import { overTiles, parseTilePath, tilePath, tilesOf } from '#/bundle/log/tiles.ts';
import { hexOf } from '#/bundle/keys.ts';
import { leafOf, MemoryTree, treeOf } from '#/test/support/log/memory-tree.ts';
import { signerNumber } from '#/test/support/trust-world.ts';

/** Leaves and roots of the reference tests of Certificate Transparency. */
const referenceLeaves = [
  '',
  '00',
  '10',
  '2021',
  '3031',
  '40414243',
  '5051525354555657',
  '606162636465666768696a6b6c6d6e6f',
];
const referenceRoots = [
  '6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d',
  'fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125',
  'aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77',
  'd37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7',
  '4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4',
  '76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef',
  'ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c',
  '5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328',
];
const SIZE_MAX = 64;

describe('the tree', () => {
  it('has the reference roots of Certificate Transparency', () => {
    const tree = new MemoryTree();
    expect(hexOf(emptyRoot())).toBe(
      'e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855',
    );
    for (const [index, leaf] of referenceLeaves.entries()) {
      tree.append(Buffer.from(leaf, 'hex'));
      expect(hexOf(tree.head().root)).toBe(referenceRoots[index]);
    }
  });

  it('L07 proves every leaf of every tree up to 64, for no other index and no other leaf', () => {
    const tree = treeOf(SIZE_MAX);
    const counts = { proved: 0, forged: 0 };
    for (let size = 1; size <= SIZE_MAX; size += 1) {
      const { root } = tree.head(size);
      for (let index = 0; index < size; index += 1) {
        const proof = inclusionProof(index, size, tree.read);
        const leaf = leafHash(leafOf(index));
        if (isIncluded(leaf, index, size, root, proof)) counts.proved += 1;
        for (let other = 0; other <= size; other += 1) {
          if (other !== index && isIncluded(leaf, other, size, root, proof)) counts.forged += 1;
        }
        if (isIncluded(leafHash(leafOf(size)), index, size, root, proof)) counts.forged += 1;
      }
    }
    expect(counts).toEqual({ proved: (SIZE_MAX * (SIZE_MAX + 1)) / 2, forged: 0 });
  }, 120_000);

  it('L07 proves that every tree up to 64 is the beginning of every later one, and of no other', () => {
    const tree = treeOf(SIZE_MAX);
    const heads = Array.from({ length: SIZE_MAX + 1 }, (_, size) => tree.head(size));
    const others = treeOf(SIZE_MAX, 'forged ');
    const otherHeads = heads.map(({ size }) => others.head(size));
    const counts = { proved: 0, forged: 0 };
    for (let size = 1; size <= SIZE_MAX; size += 1) {
      const newer = heads[size] as TreeHead;
      for (let older = 1; older <= size; older += 1) {
        const proof = consistencyProof(older, size, tree.read);
        const before = heads[older] as TreeHead;
        if (isConsistent(before, newer, proof)) counts.proved += 1;
        if (isConsistent(otherHeads[older] as TreeHead, newer, proof)) counts.forged += 1;
        if (isConsistent(before, otherHeads[size] as TreeHead, proof)) counts.forged += 1;
        for (let claimed = 1; claimed <= size; claimed += 1) {
          if (claimed === older) continue;
          if (isConsistent({ size: claimed, root: before.root }, newer, proof)) counts.forged += 1;
        }
      }
    }
    expect(counts).toEqual({ proved: (SIZE_MAX * (SIZE_MAX + 1)) / 2, forged: 0 });
  }, 120_000);

  it('L07 an empty tree begins every tree and holds no leaf', () => {
    const tree = treeOf(5);
    expect(isConsistent({ size: 0, root: emptyRoot() }, tree.head(), [])).toBe(true);
    expect(isConsistent({ size: 0, root: tree.head().root }, tree.head(), [])).toBe(false);
    expect(isIncluded(leafHash(leafOf(0)), 0, 0, emptyRoot(), [])).toBe(false);
    expect(isIncluded(leafHash(leafOf(0)), 0, 1, leafHash(leafOf(0)), [])).toBe(true);
    expect(isConsistent(tree.head(), { size: 4, root: tree.head(4).root }, [])).toBe(false);
  });
});

describe('tiles', () => {
  it('name themselves as C2SP tlog-tiles does, and nothing else is a name', () => {
    expect(tilePath({ level: 0, index: 1_234_067, width: 256 })).toBe('tile/0/x001/x234/067');
    expect(tilePath({ level: 3, index: 0, width: 17 })).toBe('tile/3/000.p/17');
    expect(tilePath({ level: 0, index: 5, width: 3 }, 'entries')).toBe('tile/entries/005.p/3');
    for (const tile of tilesOf(70_000)) expect(parseTilePath(tilePath(tile))).toEqual(tile);
    for (const path of [
      'tile/0/1',
      'tile/0/000.p/256',
      'tile/0/000.p/0',
      'tile/0/000.p/01',
      'tile/0/x000/000',
      'tile/00/000',
      'tile/0/../000',
    ]) {
      expect(parseTilePath(path)).toBeNull();
    }
  });

  it('give the same roots and proofs as the whole tree, over the edges of tiles', async () => {
    for (const size of [1, 255, 256, 257, 511, 512, 600, 65_793]) {
      const tree = treeOf(size);
      const read = tree.throughTiles();
      expect(rootAt(size, read)).toEqual(tree.head().root);
      for (const index of [0, size >> 1, size - 1]) {
        const proof = await overTiles(
          size,
          (each) => inclusionProof(index, size, each),
          async (tile) => tree.tile(tile),
        );
        expect(proof).toEqual(inclusionProof(index, size, tree.read));
        expect(isIncluded(leafHash(leafOf(index)), index, size, tree.head().root, proof)).toBe(
          true,
        );
        expect(consistencyProof(index + 1, size, read)).toEqual(
          consistencyProof(index + 1, size, tree.read),
        );
      }
    }
  }, 120_000);
});

describe('checkpoints, proofs, entries', () => {
  const signer = signerNumber(1);
  const log = { origin: 'switchback-log/test', keys: [signer.key] };

  it('a checkpoint is what the format of signed notes says', () => {
    const head = treeOf(3).head();
    const text = signCheckpoint(log.origin, head, signer);
    expect(text.split('\n').slice(0, 4)).toEqual([
      log.origin,
      '3',
      Buffer.from(head.root).toString('base64'),
      '',
    ]);
    expect(openCheckpoint(text, log)).toEqual(head);
    // A cosignature by somebody unknown stops nobody.
    const witness = text.replace(/\n$/, `\n\u2014 witness.example ${'A'.repeat(92)}\n`);
    expect(openCheckpoint(witness, log)).toEqual(head);
  });

  it('a proof comes back as it was written', () => {
    const tree = treeOf(7);
    const proof = {
      entry: leafOf(4),
      index: 4,
      hashes: inclusionProof(4, 7, tree.read),
      checkpoint: signCheckpoint(log.origin, tree.head(), signer),
    };
    const parsed = parseProof(formatProof(proof));
    expect(formatProof(parsed)).toBe(formatProof(proof));
    expect(verifyProof(parsed, log)).toEqual(tree.head());
  });

  it('an entry is canonical, and one with fractions and broken text has one spelling too', () => {
    const entry = { id: 1, atMs: 5, actor: 'a', type: 't', subject: 's' };
    const bytes = entryBytes({ ...entry, details: { b: 0.5, a: '\ud800', c: [1, -0] } });
    expect(Buffer.from(bytes).toString()).toBe(
      '{"actor":"a","atMs":5,"details":{"a":"\ufffd","b":"0.5","c":[1,"0"]},"id":1,' +
        '"schema":"switchback.log-entry/1","subject":"s","type":"t"}',
    );
    expect(readEntry(bytes).details).toEqual({ a: '\ufffd', b: '0.5', c: [1, '0'] });
    expect(() => readEntry(Buffer.from('{}'))).toThrow(/log entry/);
    expect(() => entryBytes({ ...entry, details: { a: 'x'.repeat(70_000) } })).toThrow(/entry of/);
  });

  it('bundles of entries come apart where they were put together, and not when cut', () => {
    const entries = [leafOf(1), new Uint8Array(), leafOf(2)];
    const packed = packEntries(entries);
    expect(unpackEntries(packed).map(hexOf)).toEqual(entries.map(hexOf));
    expect(() => unpackEntries(packed.subarray(0, packed.length - 1))).toThrow(/cut off/);
  });
});
