/** Attacks on the audit log: L01-L08 on its formats, E19 on the pins that it vouches for, and a log that changes under a host. */
import { createHash } from 'node:crypto';
import { describe, expect, it } from 'vitest';
import { readMemory } from '#/agent/adapters/trust-state.ts';
import { hexOf } from '#/bundle/keys.ts';
import { openCheckpoint, signCheckpoint } from '#/bundle/log/checkpoint.ts';
import { entryBytes } from '#/bundle/log/entry.ts';
import {
  consistencyProof,
  emptyRoot,
  inclusionProof,
  isConsistent,
  isIncluded,
  leafHash,
} from '#/bundle/log/merkle.ts';
import { formatProof, type LogProof, parseProof, verifyProof } from '#/bundle/log/proof.ts';
import { readRoleDocument, publish } from '#/control/trust/repository.ts';
import { setDesired, setLog } from '#/control/trust/targets.ts';
import type { ArtifactRef, DesiredDocument } from '#/protocol/documents.ts';
import type { GroupName } from '#/protocol/ids.ts';
import { type Tile } from '#/bundle/log/tiles.ts';
import { type LogCopy, verifyLog } from '#/bundle/log/verify.ts';
import { leafOf, MemoryTree, treeOf } from '#/test/support/log/memory-tree.ts';
import {
  agentOf,
  assignmentOf,
  contextOf,
  HOST,
  signerNumber,
  type TestAgent,
  TrustWorld,
} from '#/test/support/trust-world.ts';

const signer = signerNumber(1);
const log = { origin: 'switchback-log/test/1', keys: [signer.key] };
const LOG_CODE = expect.objectContaining({ code: 'E_LOG' });

function proofIn(size: number, index: number, by = signer): LogProof {
  const tree = treeOf(size);
  return {
    entry: leafOf(index),
    index,
    hashes: inclusionProof(index, size, tree.read),
    checkpoint: signCheckpoint(log.origin, tree.head(), by),
  };
}

describe('formats of the log', () => {
  it('L01 an entry that was altered by one bit has no proof any more', () => {
    const proof = proofIn(9, 4);
    expect(verifyProof(proof, log).size).toBe(9);
    for (let bit = 0; bit < 8 * proof.entry.length; bit += 1) {
      const entry = Uint8Array.from(proof.entry);
      entry[bit >> 3] = (entry[bit >> 3] ?? 0) ^ (1 << (bit & 7));
      expect(() => verifyProof({ ...proof, entry }, log)).toThrow(LOG_CODE);
    }
  });

  it('L02 a log that was truncated is no continuation of what was seen', () => {
    const tree = treeOf(20);
    for (let size = 0; size < 20; size += 1) {
      for (const proof of [[], consistencyProof(size, 20, tree.read)]) {
        expect(isConsistent(tree.head(20), tree.head(size), proof)).toBe(false);
      }
    }
  });

  it('L03 a checkpoint by another key, of another log, or with a changed line is refused', () => {
    const head = treeOf(5).head();
    const good = signCheckpoint(log.origin, head, signer);
    const lines = good.split('\n');
    // The key of the log signed a note of another log: under its own name, but over the other's first line.
    const id = Buffer.from(good.split(' ')[2] ?? '', 'base64').subarray(0, 4);
    const body = signCheckpoint('switchback-log/test/2', head, signer).split('\n\n')[0] ?? '';
    const signature = Buffer.concat([id, signer.sign(Buffer.from(`${body}\n`))]);
    const foreign = `${body}\n\n\u2014 ${log.origin} ${signature.toString('base64')}\n`;
    const bad = [
      foreign,
      signCheckpoint(log.origin, head, signerNumber(2)),
      signCheckpoint('switchback-log/test/2', head, signer),
      good.replace('\n5\n', '\n6\n'),
      good.replace('\n5\n', '\n05\n'),
      good.replace(lines[2] ?? '', Buffer.from(emptyRoot()).toString('base64')),
      good.replace('\n\n', '\nextension\n\n'),
      good.slice(0, good.indexOf('\u2014')),
      good.trimEnd(),
      `${good}\n`,
      good.replaceAll('\n', '\r\n'),
    ];
    for (const text of bad) expect(() => openCheckpoint(text, log)).toThrow(LOG_CODE);
    expect(openCheckpoint(good, log)).toEqual(head);
  });

  it('L04 a log that grows over another history is refused', () => {
    const [tree, other] = [treeOf(30), treeOf(30, 'other ')];
    for (let older = 1; older < 30; older += 1) {
      for (const from of [tree, other]) {
        const proof = consistencyProof(older, 30, from.read);
        expect(isConsistent(tree.head(older), other.head(), proof)).toBe(false);
      }
    }
  });

  it('L05 a proof for another index is refused', () => {
    const proof = proofIn(13, 6);
    for (let index = 0; index < 20; index += 1) {
      if (index === 6) continue;
      expect(() => verifyProof({ ...proof, index }, log)).toThrow(LOG_CODE);
    }
    for (const text of ['index 06', 'index -1', 'index 6.0', 'index 9007199254740993', 'index']) {
      const changed = formatProof(proof).replace('index 6', text);
      expect(() => verifyProof(parseProof(changed), log)).toThrow(LOG_CODE);
    }
  });

  it('L06 a proof with hashes too many, too few, swapped or cut is refused', () => {
    const proof = proofIn(13, 6);
    const { hashes } = proof;
    const [first, ...rest] = hashes;
    const extra = new Uint8Array(32);
    const bad = [
      [],
      rest,
      hashes.slice(0, -1),
      [...hashes, extra],
      [extra, ...hashes],
      hashes.toReversed(),
      [first?.subarray(0, 31) as Uint8Array, ...rest],
    ];
    for (const each of bad) {
      expect(() => verifyProof({ ...proof, hashes: each }, log)).toThrow(LOG_CODE);
    }
    const tree = treeOf(13);
    const between = consistencyProof(6, 13, tree.read);
    for (const each of [[], between.slice(1), [...between, extra], between.toReversed()]) {
      expect(isConsistent(tree.head(6), tree.head(13), each)).toBe(false);
    }
    const text = formatProof(proof);
    for (const each of [text.replace('v1', 'v2'), text.replace('\n\n', '\n'), text.slice(5), '']) {
      expect(() => verifyProof(parseProof(each), log)).toThrow(LOG_CODE);
    }
  });

  it('L07 sizes 0, 1 and around powers of two have no proof that fits two of them', () => {
    for (const size of [0, 1, 2, 3, 4, 7, 8, 9, 15, 16, 17, 255, 256, 257]) {
      const tree = treeOf(size);
      const head = tree.head();
      const other = treeOf(size + 1, 'other ').head();
      expect(isConsistent(head, head, [])).toBe(true);
      expect(isConsistent(head, { size, root: other.root }, [])).toBe(false);
      if (size === 0) continue;
      const proof = inclusionProof(size - 1, size, tree.read);
      const leaf = leafHash(leafOf(size - 1));
      expect(isIncluded(leaf, size - 1, size, head.root, proof)).toBe(true);
      expect(isIncluded(leaf, size, size, head.root, proof)).toBe(false);
      expect(isIncluded(leaf, size - 1, size + 1, other.root, proof)).toBe(false);
      // A node of the tree is no leaf of it: the two are hashed apart.
      expect(isIncluded(head.root, 0, 1, head.root, [])).toBe(true);
      if (size > 1) expect(leafHash(head.root)).not.toEqual(head.root);
    }
  });

  it('L08 a second line under the same name and id, or an id that two keys share, is refused', () => {
    const text = signCheckpoint(log.origin, treeOf(5).head(), signer);
    const line = text.slice(text.indexOf('\u2014'));
    const bytes = Buffer.from(line.split(' ')[2] ?? '', 'base64');
    bytes[20] = (bytes[20] ?? 0) ^ 1;
    const forged = `\u2014 ${log.origin} ${bytes.toString('base64')}\n`;
    for (const lines of [line + line, line + forged, forged + line]) {
      const changed = text.slice(0, text.indexOf('\u2014')) + lines;
      expect(() => openCheckpoint(changed, log)).toThrow(LOG_CODE);
    }
    // The key listed twice is one key; another key whose four bytes are the same would be another matter.
    expect(openCheckpoint(text, { ...log, keys: [signer.key, signer.key] }).size).toBe(5);
    const [id, ...twins] = keysOfOneId(log.origin);
    const shared = `\u2014 ${log.origin} ${Buffer.concat([id, Buffer.alloc(64)]).toString('base64')}\n`;
    const keys = [signer.key, ...twins.map((bytes, at) => ({ keyId: `twin ${at}`, bytes }))];
    expect(() => openCheckpoint(text + shared, { ...log, keys })).toThrow(/two keys share/);
    expect(openCheckpoint(text, { ...log, keys }).size).toBe(5);
  });
});

/** Four bytes, and two keys that have them as their id: by the birthday paradox, some hundred thousand hashes away. */
function keysOfOneId(origin: string): [Buffer, Buffer, Buffer] {
  const known = new Map<number, Buffer>();
  for (let number = 0; ; number += 1) {
    const bytes = createHash('sha256').update(`key ${number}`).digest();
    const hash = createHash('sha256').update(`${origin}\n`).update(Uint8Array.of(1)).update(bytes);
    const id = hash.digest().subarray(0, 4);
    const twin = known.get(id.readUInt32BE());
    if (twin !== undefined) return [id, twin, bytes];
    known.set(id.readUInt32BE(), bytes);
  }
}

describe('a copy of the log', () => {
  const entryAt = (index: number, id = index + 1): Uint8Array =>
    entryBytes({ id, atMs: 1, actor: 'a', type: 't', subject: 's', details: { index } });

  /** A copy of 300 entries; `changed` replaces parts of it. */
  function copyWith(changed: Partial<LogCopy> = {}, entry = entryAt): LogCopy {
    const tree = new MemoryTree();
    for (let index = 0; index < 300; index += 1) tree.append(entry(index));
    return {
      checkpoint: signCheckpoint(log.origin, tree.head(), signer),
      hashes: async (tile) => tree.tile(tile),
      entries: async (tile) =>
        Array.from({ length: tile.width }, (_, at) => entry(tile.index * 256 + at)),
      ...changed,
    };
  }

  it('L01 L02 L04 does not verify under another root, with other hashes, entries or numbers', async () => {
    const good = copyWith();
    expect((await verifyLog(good, log)).head.size).toBe(300);
    const other = copyWith({}, (index) => entryAt(index + 1));
    const flipped = async (tile: Tile, level: number): Promise<Uint8Array> => {
      const bytes = Uint8Array.from(await good.hashes(tile));
      if (tile.level === level) bytes[5] = (bytes[5] ?? 0) ^ 1;
      return bytes;
    };
    const bad: Readonly<Record<string, LogCopy>> = {
      'entries and hashes of another history': {
        ...copyWith({}, (index) => entryAt(index + 1000, index + 1)),
        checkpoint: good.checkpoint,
      },
      'a hash of an entry': copyWith({ hashes: (tile) => flipped(tile, 0) }),
      'a hash above a tile': copyWith({ hashes: (tile) => flipped(tile, 1) }),
      'a tile that is cut off': copyWith({
        hashes: async (tile) => (await good.hashes(tile)).subarray(32),
      }),
      'an entry that is missing': copyWith({
        entries: async (tile) => (await good.entries(tile)).slice(1),
      }),
      'entries whose numbers are not theirs': other,
      'a checkpoint of another size': copyWith({
        checkpoint: signCheckpoint(log.origin, treeOf(299).head(), signer),
      }),
    };
    for (const [what, copy] of Object.entries(bad)) {
      await expect(verifyLog(copy, log), what).rejects.toMatchObject({ code: 'E_LOG' });
    }
  });
});

interface Scene {
  readonly world: TrustWorld;
  readonly agent: TestAgent;
  readonly artifact: ArtifactRef;
}

/** Release 1 is pinned in the log and was resolved once. */
async function ready(): Promise<Scene> {
  const world = new TrustWorld();
  world.openLog();
  const artifact = world.release(1);
  world.pin(artifact, 1);
  const agent = agentOf(world);
  const offer = await agent.trust.resolve(assignmentOf(artifact), contextOf(world.nowMs));
  expect(offer?.artifactId).toBe(artifact.artifactId);
  return { world, agent, artifact };
}

/** The offer is refused with E_LOG, and what the host remembers of the log stays. */
async function refuses({ world, agent, artifact }: Scene): Promise<void> {
  const before = await readMemory(agent.store, HOST);
  await expect(
    agent.trust.resolve(assignmentOf(artifact), contextOf(world.nowMs)),
  ).rejects.toMatchObject({ code: 'E_LOG' });
  const after = await readMemory(agent.store, HOST);
  expect(after?.log).toEqual(before?.log);
  expect(after?.pins).toEqual(before?.pins);
}

function pinDocument(artifact: ArtifactRef, seq: number): DesiredDocument {
  const group = 'blue' as GroupName;
  return { schema: 'switchback.desired/1', group, seq, artifact, reason: 'test', waves: [] };
}

describe('pins and the log', () => {
  it('E19 a pin without proof is refused, while the signed policy names a log', async () => {
    const scene = await ready();
    const { world, artifact } = scene;
    world.publish(setDesired(world.repository(), pinDocument(artifact, 2)));
    await refuses(scene);
  });

  it('E19 a pin with the proof of another leaf is refused', async () => {
    const scene = await ready();
    const { world, artifact } = scene;
    const { logProof } = world.logged(pinDocument(artifact, 2));
    const document = { ...pinDocument(artifact, 3), logProof: logProof as string };
    world.publish(setDesired(world.repository(), document));
    await refuses(scene);
  });

  it('E19 an entry of another type with the digest of the pin is no proof of it', async () => {
    const scene = await ready();
    const { world, artifact } = scene;
    const document = pinDocument(artifact, 2);
    const { digest } = JSON.parse(
      Buffer.from(parseProof(world.logged(document).logProof as string).entry).toString(),
    ).details as { digest: string };
    const id = (world.log?.tree.size ?? 0) + 1;
    const entry = {
      id,
      atMs: 1,
      actor: 'x',
      type: 'labels',
      subject: 'host/x',
      details: { digest },
    };
    world.log?.tree.append(entryBytes(entry));
    const logProof = world.proofOf(entry);
    world.publish(setDesired(world.repository(), { ...document, logProof }));
    await refuses(scene);
  });

  it('E19 a log of another key is no log, whatever it proves', async () => {
    const scene = await ready();
    const { world, artifact } = scene;
    const { log: own } = world;
    world.log = own === null ? null : { ...own, signer: signerNumber(78) };
    world.pin(artifact, 2);
    await refuses(scene);
  });

  it('X07 F80 a log that was edited, truncated or forked under a host is refused by it', async () => {
    for (const [size, salt] of [
      [9, 'edited '],
      [2, 'entry '],
      [600, 'forked '],
    ] as const) {
      const scene = await ready();
      const { world, artifact } = scene;
      const { log: own } = world;
      world.log = own === null ? null : { ...own, tree: treeOf(size, salt) };
      world.pin(artifact, 2);
      await refuses(scene);
    }
  });

  it('a log that grew by a thousand entries is followed, and told in reports', async () => {
    const { world, agent, artifact } = await ready();
    for (let index = 0; index < 1000; index += 1) world.log?.tree.append(leafOf(index));
    world.pin(artifact, 2);
    await agent.trust.resolve(assignmentOf(artifact), contextOf(world.nowMs));
    const head = world.log?.tree.head();
    expect(agent.trust.seenLog()).toEqual({
      origin: world.log?.origin,
      size: head?.size,
      root: hexOf(head?.root as Uint8Array),
    });
    // Another host sees the same, from nothing.
    const fresh = agentOf(world);
    await fresh.trust.resolve(assignmentOf(artifact), contextOf(world.nowMs));
    expect(fresh.trust.seenLog()).toEqual(agent.trust.seenLog());
  });

  it('a log whose tiles cannot be had holds the pin up, and is no refusal for ever', async () => {
    const { world, agent, artifact } = await ready();
    for (let index = 0; index < 10; index += 1) world.log?.tree.append(leafOf(index));
    world.pin(artifact, 2);
    const fetch = { ...world.fetch(), log: async () => null };
    const again = agentOf(world, agent.store, { fetch });
    await expect(
      again.trust.resolve(assignmentOf(artifact), contextOf(world.nowMs)),
    ).rejects.toMatchObject({ code: 'E_HTTP' });
  });

  it('a pin that was signed before the log had it is proved by what control serves beside it', async () => {
    const { world, agent, artifact } = await ready();
    const document = pinDocument(artifact, 2);
    const { logProof } = world.logged(document);
    world.publish(setDesired(world.repository(), document));
    const name = 'log/proof/groups/blue/desired.json';
    world.files.set(name, Buffer.from(logProof as string));
    const offer = await agent.trust.resolve(assignmentOf(artifact), contextOf(world.nowMs));
    expect(offer?.seq).toBe(2);
  });

  it('another origin that the policy signs begins a new log; without a policy no log is asked for', async () => {
    const { world, agent, artifact } = await ready();
    const key = hexOf((world.log?.signer ?? signer).key.bytes);
    const origin = 'switchback-log/test/2';
    world.publish(setLog(world.repository(), { schema: 'switchback.log/1', origin, keys: [key] }));
    world.log = { tree: treeOf(1, 'new '), signer: signerNumber(77), origin };
    world.pin(artifact, 2);
    await agent.trust.resolve(assignmentOf(artifact), contextOf(world.nowMs));
    expect(agent.trust.seenLog()).toMatchObject({ origin, size: 2 });
    const policy = readRoleDocument(world.repository(), 'policy');
    delete policy.targets['policy/log.json'];
    world.publish(publish(world.repository(), new Map([['policy', policy]]), []));
    world.publish(setDesired(world.repository(), pinDocument(artifact, 3)));
    const offer = await agent.trust.resolve(assignmentOf(artifact), contextOf(world.nowMs));
    expect(offer?.seq).toBe(3);
  });
});
