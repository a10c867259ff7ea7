import * as v from 'valibot';
import { describe, expect, it } from 'vitest';
import { openDenyList } from '#/agent/adapters/deny-list.ts';
import { openFloor } from '#/test/support/sim-host/floor.ts';
import { encodeRecord, openJournal, parseJournal } from '#/agent/adapters/journal.ts';
import { MAX_EVENTS, MAX_PROGRESS_EVENTS, openOutbox } from '#/agent/adapters/outbox.ts';
import { openReserve } from '#/agent/adapters/reserve.ts';
import { decodeState, encodeState, stateFile } from '#/agent/adapters/state-file.ts';
import { replaceFile } from '#/agent/adapters/durable.ts';
import type { DenyEntry } from '#/agent/core/effect.ts';
import type { AttemptPhase, ReportEvent } from '#/protocol/documents.ts';
import type { ArtifactId } from '#/protocol/ids.ts';
import { emptyImage } from '#/test/support/sim-fs/image.ts';
import { simFs } from '#/test/support/sim-fs/sim-fs.ts';

const format = {
  kind: 'sample',
  version: 2,
  limitBytes: 1000,
  schema: v.object({ count: v.number() }),
};

describe('state file', () => {
  const bytes = encodeState(format, { count: 7 });

  it('F30 H03 any flipped bit, any cut, and zeros are E_STATE', () => {
    const read = (content: Uint8Array): unknown => decodeState(format, '/x', content);
    expect(read(bytes)).toEqual({ count: 7 });
    for (let bit = 0; bit < bytes.length * 8; bit += 1) {
      const altered = Buffer.from(bytes);
      altered[bit >> 3] = (altered[bit >> 3] ?? 0) ^ (1 << (bit & 7));
      // The version's digit may turn into that of an older version, which is read the same way.
      const isVersion = /^switchback\.sample\/[01] /.test(altered.toString('latin1'));
      if (!isVersion) expect(() => read(altered), `bit ${bit}`).toThrow('/x: ');
    }
    for (let length = 0; length < bytes.length; length += 1) {
      expect(() => read(bytes.subarray(0, length))).toThrow('/x: ');
    }
    expect(() => read(new Uint8Array(bytes.length))).toThrow('no header');
  });

  it('H03 a file of another kind is refused', () => {
    expect(() => decodeState({ ...format, kind: 'other' }, '/x', bytes)).toThrow('holds a sample');
  });

  it('F66 an older agent refuses a newer version, and ignores fields that it does not know', () => {
    expect(() => decodeState({ ...format, version: 1 }, '/x', bytes)).toThrow('newer');
    const wider = encodeState(
      { ...format, schema: v.object({ count: v.number(), more: v.string() }) },
      { count: 1, more: 'x' },
    );
    expect(decodeState(format, '/x', wider)).toEqual({ count: 1 });
  });

  it('a value over the limit is refused before it is written', async () => {
    const { files } = simFs(emptyImage());
    const file = stateFile(files, '/x', { ...format, limitBytes: 20 });
    await expect(file.write({ count: 1 })).rejects.toMatchObject({ code: 'E_STATE' });
    expect(await files.stat('/x')).toBeNull();
  });
});

describe('journal', () => {
  const record = (seq: number) => ({
    v: 1,
    seq,
    bootId: 'b',
    monotonicMs: 1,
    wallMs: 2,
    data: { text: 'ü'.repeat(seq) },
  });
  const lines = [1, 2, 3].map((seq) => encodeRecord(record(seq)));
  const whole = Buffer.concat(lines);

  it('H02 a flipped bit ends it there; behind it nothing is read', () => {
    for (let bit = 0; bit < whole.length * 8; bit += 1) {
      const altered = Buffer.from(whole);
      altered[bit >> 3] = (altered[bit >> 3] ?? 0) ^ (1 << (bit & 7));
      const { records, damage } = parseJournal(altered);
      const firstEnd = lines[0]?.length ?? 0;
      const secondEnd = firstEnd + (lines[1]?.length ?? 0);
      const at = bit >> 3;
      expect(records.length).toBe(at < firstEnd ? 0 : at < secondEnd ? 1 : 2);
      expect(damage).toBe(at < secondEnd ? 'rotten' : 'torn');
    }
  });

  it('H02 cut anywhere it keeps the records before', () => {
    for (let length = 0; length <= whole.length; length += 1) {
      const { records, goodBytes } = parseJournal(whole.subarray(0, length));
      expect(goodBytes).toBeLessThanOrEqual(length);
      expect(records.map((one) => one.seq)).toEqual([1, 2, 3].slice(0, records.length));
    }
  });

  it('stays bounded over many records, counts on, and keeps the newest', async () => {
    const { files } = simFs(emptyImage());
    const limits = { recordBytes: 1000, rotateBytes: 4000 };
    const journal = await openJournal(files, '/journal', limits);
    for (let index = 0; index < 200; index += 1) {
      const data = { index, filler: 'x'.repeat(100) };
      await journal.append({ bootId: 'b', monotonicMs: 0, wallMs: 0, data });
      expect((await files.stat('/journal'))?.sizeBytes).toBeLessThan(5000);
    }
    expect((await journal.tail(2)).map((one) => one.seq)).toEqual([199, 200]);
    const again = await openJournal(files, '/journal', limits);
    expect(again.records.at(-1)?.seq).toBe(200);
    expect(again.records.length).toBeGreaterThan(5);
  });

  it('F66 a journal of a newer agent is refused, not misread', async () => {
    const { files } = simFs(emptyImage());
    await replaceFile(files, '/journal', encodeRecord({ ...record(1), v: 2 }));
    await expect(openJournal(files, '/journal')).rejects.toMatchObject({ code: 'E_STATE' });
  });
});

const artifact = (number: number): ArtifactId =>
  number.toString(16).padStart(64, '0') as ArtifactId;

describe('deny-list and floor', () => {
  const entry = (number: number): DenyEntry => ({
    artifactId: artifact(number),
    code: 'E_UNHEALTHY',
    message: 'x',
    retryGeneration: 0,
    count: 1,
    atWallMs: 1,
  });

  it('F55 an entry is there after a restart, is replaced by its artifact, and can be cleared', async () => {
    const { files } = simFs(emptyImage());
    const list = await openDenyList(files, '/deny');
    await list.put(entry(1));
    await list.put(entry(2));
    await list.put({ ...entry(1), count: 2 });
    const again = await openDenyList(files, '/deny');
    expect(again.entries().map((one) => [one.artifactId, one.count])).toEqual([
      [artifact(2), 1],
      [artifact(1), 2],
    ]);
    await again.remove(artifact(1));
    expect((await openDenyList(files, '/deny')).entries()).toHaveLength(1);
  });

  it('the deny-list is bounded: the oldest entry goes', async () => {
    const { files } = simFs(emptyImage());
    const list = await openDenyList(files, '/deny');
    for (let number = 0; number < 300; number += 1) await list.put(entry(number));
    expect(list.entries()).toHaveLength(256);
    expect(list.entries()[0]?.artifactId).toBe(artifact(44));
  });

  it('F10 the floor never goes down', async () => {
    const { files } = simFs(emptyImage());
    const floor = await openFloor(files, '/floor');
    await floor.raise('web', 5);
    await floor.raise('web', 3);
    expect((await openFloor(files, '/floor')).of('web')).toBe(5);
    expect(floor.of('other')).toBe(0);
  });
});

describe('outbox', () => {
  const event = (number: number, phase: AttemptPhase): ReportEvent => ({
    id: number.toString(16).padStart(32, '0'),
    attempt: 'a'.repeat(32),
    rolloutId: null,
    artifactId: artifact(1),
    phase,
    code: null,
    message: '',
    at: 1,
    evidence: {},
  });

  it('F57 keeps order over restarts, takes an event once, forgets what is acknowledged', async () => {
    const { files } = simFs(emptyImage());
    const outbox = await openOutbox(files, '/outbox');
    await outbox.add(event(9, 'downloading'));
    await outbox.add(event(1, 'confirmed'));
    await outbox.add(event(9, 'downloading'));
    const again = await openOutbox(files, '/outbox');
    expect(again.peek(10).map((one) => one.phase)).toEqual(['downloading', 'confirmed']);
    await again.acknowledge([event(9, 'downloading').id]);
    await again.add(event(2, 'offered'));
    const third = await openOutbox(files, '/outbox');
    expect(third.peek(10).map((one) => one.phase)).toEqual(['confirmed', 'offered']);
  });

  it('F57 when it is full, progress goes and ends of attempts stay', async () => {
    const { files } = simFs(emptyImage());
    const outbox = await openOutbox(files, '/outbox');
    await outbox.add(event(1, 'rolled-back'));
    for (let number = 2; number < MAX_PROGRESS_EVENTS + 50; number += 1) {
      await outbox.add(event(number, 'downloading'));
    }
    const held = outbox.peek(MAX_EVENTS);
    expect(held.length).toBeLessThanOrEqual(MAX_PROGRESS_EVENTS + 2);
    expect(held[0]?.phase).toBe('rolled-back');
    expect(held.at(-1)).toEqual(event(MAX_PROGRESS_EVENTS + 49, 'downloading'));
  });

  it('a sequence number is never given twice, and goes above what control has seen (F63)', async () => {
    const { files } = simFs(emptyImage());
    const outbox = await openOutbox(files, '/outbox');
    expect(await outbox.takeSequence()).toBe(1);
    const again = await openOutbox(files, '/outbox');
    expect(await again.takeSequence()).toBe(2);
    await again.raiseSequence(40);
    await again.raiseSequence(5);
    expect(await (await openOutbox(files, '/outbox')).takeSequence()).toBe(41);
  });

  it('H03 a damaged event is set aside and the others are kept', async () => {
    const { files } = simFs(emptyImage());
    const outbox = await openOutbox(files, '/outbox');
    await outbox.add(event(1, 'offered'));
    await outbox.add(event(2, 'confirmed'));
    const name = (await files.list('/outbox'))[0]?.name ?? '';
    await replaceFile(files, `/outbox/${name}`, Buffer.from('rot'));
    const again = await openOutbox(files, '/outbox');
    expect(again.damagedFiles).toEqual([name]);
    expect(again.peek(10)).toEqual([event(2, 'confirmed')]);
  });
});

describe('reserve', () => {
  it('F18 F69 on a full disk the reserve is given up and the write succeeds', async () => {
    let isFull = false;
    let hasReserve = true;
    const sim = simFs(emptyImage(), ({ name, path }) => {
      if (name === 'unlink' && path === '/reserve') hasReserve = false;
      return isFull && hasReserve && name === 'write' ? 'ENOSPC' : null;
    });
    const reserve = openReserve(sim.files, '/reserve', 1000);
    await reserve.keep();
    isFull = true;
    await reserve.spend(() => replaceFile(sim.files, '/file', Buffer.from('x')));
    expect(await sim.files.stat('/reserve')).toBeNull();
    expect(await sim.files.stat('/file')).toMatchObject({ sizeBytes: 1 });
  });

  it('without a reserve left a full disk is E_SPACE', async () => {
    const sim = simFs(emptyImage(), ({ name }) => (name === 'write' ? 'ENOSPC' : null));
    const reserve = openReserve(sim.files, '/reserve', 1000);
    await reserve.keep();
    const write = reserve.spend(() => replaceFile(sim.files, '/file', Buffer.from('x')));
    await expect(write).rejects.toMatchObject({ code: 'E_SPACE' });
  });
});
