/** The real GRUB against the rules of docs/specs/partitions.md, section 2, and against the agent's reading of the same bytes. */
import { spawnSync } from 'node:child_process';
import { rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { ENV_BLOCK_BYTES, makeEnvBlock } from '#/agent/adapters/boot/env-block.ts';
import { grubConfig } from '#/agent/adapters/boot/grub-config.ts';
import {
  encodeCopy,
  initialOrder,
  type Order,
  orderWrites,
  readOrder,
} from '#/agent/adapters/boot/order.ts';
import { grubChoice } from '#/test/support/boot/grub-choice.ts';
import { grubDisk, hasGrub, partUuids } from '#/test/support/boot/grub-disk.ts';

const args = { a: 'console=ttyS0 panic=5', b: 'x.y=1,2 z=a/b:c@d%e+f-g' } as const;
const quiet: Order = { default: 'a', trial: null, tries: 0, arm: 0, bad: null, arguments: args };
const trialOf = (change: Partial<Order>): Order => ({
  ...{ ...quiet, trial: 'b', tries: 2, arm: 100000007 },
  ...change,
});
const empty = makeEnvBlock([]);
const counted = (tried: number | string, used: string): Uint8Array =>
  makeEnvBlock([
    ['tried', String(tried)],
    ['used', used],
  ]);

describe.skipIf(!hasGrub())('GRUB', () => {
  it('F36 GRUB boots another slot than the table says', () => {
    using disk = grubDisk();
    const damaged = new Uint8Array(ENV_BLOCK_BYTES);
    const orders: readonly Order[] = [
      quiet,
      { ...quiet, default: 'b', bad: 'a' },
      ...[1, 2, 3].map((tries) => trialOf({ tries })),
      trialOf({ default: 'b', trial: 'a', tries: 3 }),
    ];
    const tries = [
      ...[empty, damaged, counted(100000006, '1')],
      ...['1', '2', '3', '4', '', 'x'].map((used) => counted(100000007, used)),
    ];
    for (const order of orders) {
      for (const file of tries) {
        const region = initialOrder('a', '');
        region.set(encodeCopy(100000009, order), 4096);
        disk.writeOrder(region);
        disk.writeTries(file);
        const expected = grubChoice(region, file);
        const name = `${JSON.stringify(order)} ${Buffer.from(file.subarray(25, 60)).toString()}`;
        const booted = disk.boot();
        expect([name, booted.slot], name).toEqual([name, expected.slot]);
        expect(disk.readTries()).toEqual(Buffer.from(expected.tries));
        const slot = expected.slot;
        expect(booted.arguments).toBe(`root=PARTUUID=${partUuids[slot]} ro ${args[slot]}`);
      }
    }
  });

  it('F41 GRUB gives a trial more or fewer boots than it was armed with', () => {
    using disk = grubDisk();
    for (const tries of [1, 2, 3]) {
      const region = initialOrder('a', '');
      const { found } = readOrder(region);
      for (const { position, bytes } of orderWrites(found, trialOf({ tries })))
        region.set(bytes, position);
      disk.writeOrder(region);
      disk.writeTries(empty);
      const booted = Array.from({ length: tries + 2 }, () => disk.boot().slot);
      expect(booted).toEqual([...Array.from({ length: tries }, () => 'b'), 'a', 'a']);
    }
  });

  it('malformed parts of a valid copy are taken for a trial', () => {
    using disk = grubDisk();
    const text = Buffer.from(encodeCopy(100000009, trialOf({}))).toString('latin1');
    const changes = [
      ['trial=b', 'trial=c'],
      ['trial=b', 'trial=a'],
      ['tries=2', 'tries=0'],
      ['tries=2', 'tries=9'],
      ['arm=100000007', 'arm=000000007'],
      ['arm=100000007', 'arm=xxxxxxxxx'],
      ['bad=none', 'bad=bbbb'],
      ['trial=b', 'ttttt=b'],
    ] as const;
    for (const [from, to] of changes) {
      const region = initialOrder('a', '');
      region.set(Buffer.from(text.replace(from, to), 'latin1'), 4096);
      disk.writeOrder(region);
      disk.writeTries(empty);
      expect([to, disk.boot().slot]).toEqual([to, grubChoice(region, empty).slot]);
      expect(grubChoice(region, empty).slot, to).toBe(to === 'bad=bbbb' ? 'b' : 'a');
    }
  });

  it('F32 a copy that was torn is chosen, or hides the whole one', () => {
    using disk = grubDisk();
    const before = initialOrder('a', 'old=1');
    const { found } = readOrder(before);
    const [write] = orderWrites(found, {
      ...quiet,
      default: 'b',
      arguments: { a: 'new=1', b: 'new=1' },
    });
    if (write === undefined) throw new Error('one write');
    const states: Uint8Array[] = [];
    const cuts = [
      0, 1, 25, 29, 30, 37, 38, 39, 47, 60, 100, 300, 511, 512, 513, 1008, 1009, 1013, 1023, 1024,
    ];
    for (const cut of cuts) {
      for (const isPrefix of [true, false]) {
        const region = new Uint8Array(before);
        const part = isPrefix ? write.bytes.subarray(0, cut) : write.bytes.subarray(cut);
        region.set(part, write.position + (isPrefix ? 0 : cut));
        states.push(region);
      }
    }
    for (const region of states) {
      disk.writeOrder(region);
      const expected = grubChoice(region, empty).slot;
      expect(disk.boot().slot).toBe(expected);
    }
  });

  it('F32 both copies are lost and nothing boots', () => {
    using disk = grubDisk();
    disk.writeOrder(new Uint8Array(8192).fill(0xff));
    expect(disk.boot()).toEqual({ slot: 'a', arguments: `root=PARTUUID=${partUuids.a} ro lost=1` });
    disk.setKernel('a', false);
    expect(disk.boot().slot).toBe('b');
  });

  it('F36 a kernel that cannot be loaded ends the boot', () => {
    using disk = grubDisk();
    const region = initialOrder('a', '');
    const { found } = readOrder(region);
    for (const { position, bytes } of orderWrites(found, trialOf({ tries: 1 })))
      region.set(bytes, position);
    disk.writeOrder(region);
    disk.setKernel('b', false);
    expect(disk.boot().slot).toBe('a');
    // The try was counted: the agent sees that it was tried.
    expect(Buffer.from(disk.readTries()).toString()).toContain('used=1');
    disk.setKernel('b', true);
    expect(disk.boot().slot).toBe('a');
    disk.setKernel('a', false);
    expect(disk.boot().slot).toBe('b');
    disk.writeOrder(initialOrder('a', ''));
    expect(disk.boot().slot).toBe(null);
  });

  it('the configuration is no script of GRUB', () => {
    for (const more of [{}, { console: 'serial' as const, waitSeconds: 3 }]) {
      const text = grubConfig({
        numbers: { env: 3, rootA: 4, rootB: 5 },
        partUuid: partUuids,
        lostArguments: 'panic=5',
        ...more,
      });
      const path = join(tmpdir(), `switchback-grub-${process.pid}.cfg`);
      writeFileSync(path, text);
      const { stderr } = spawnSync('grub-script-check', [path], { encoding: 'utf8' });
      rmSync(path);
      expect(stderr).toBe('');
    }
  });
});
