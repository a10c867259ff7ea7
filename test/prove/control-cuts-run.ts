/**
 * Control's store with power cuts: started by power-cuts.ts in a mount namespace of its own. Each transaction writes a number in
 * several tables; after a cut all that were acknowledged have to be there, and none may be half there.
 */
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import type { Store } from '#/control/store/port.ts';
import { openSqliteStore } from '#/control/store/sqlite.ts';
import { artifactOf, blankGroup, blankHost, hostIdOf } from '#/test/support/control/small-fleet.ts';
import { eventOf } from '#/test/support/control/world.ts';
import {
  cutAt,
  type FileSystem,
  MountedImage,
  record,
  writeImage,
} from '#/test/support/power-disk/power-disk.ts';
import { treeState } from '#/test/support/power-disk/tree-state.ts';
import { simRandom } from '#/test/support/sim-host/sim-clock.ts';
import { drawn, type Finding } from './family.ts';
import type { CutsOutcome } from './power-cuts.ts';

const [directory = '', fileSystemName = 'ext4', , countText = '', seedText = ''] =
  process.argv.slice(2);
const fileSystem = fileSystemName as FileSystem;
const count = Number(countText);
const seed = Number(seedText);
const TRANSACTIONS = 60;
const host = hostIdOf(1);

const at = join(directory, 'mount');
const path = join(at, 'control.db');
mkdirSync(at);

/** Numbers that were acknowledged, with the length of the disk's log at that moment. */
const acknowledged: { readonly logBytes: number; readonly number: number }[] = [];
const { events, sizeBytes } = await record(directory, fileSystem, async (_at, position) => {
  const store = openSqliteStore({ path });
  await store.write(async (w) => {
    await w.putGroup(blankGroup({}));
    await w.putHost(blankHost(1));
  });
  acknowledged.push({ logBytes: position(), number: 0 });
  for (let number = 1; number <= TRANSACTIONS; number += 1) {
    await transaction(store, number);
    acknowledged.push({ logBytes: position(), number });
  }
  await store.close();
});

const started = acknowledged[0]?.logBytes ?? 0;
const first = events.findIndex(({ logBytes }) => logBytes >= started) + 1;
const base = join(directory, 'base');
const lastFlush = events.slice(0, first).findLastIndex(({ event }) => event.do === 'flush') + 1;
writeImage(base, sizeBytes, events.slice(0, lastFlush));
const points = Array.from({ length: events.length - first }, (_, index) => first + index);
const chosen = drawn(points, count, seed);
const findings: Finding[] = [];
/** What the store was opened on: files that are the same, with the same acknowledged before, end the same. */
const lookedInto = new Set<string>();
for (const point of chosen) findings.push(...(await tryCut(point)));
const outcome: CutsOutcome = {
  cases: points.length,
  states: chosen.length,
  findings,
  differing: lookedInto.size,
};
process.stdout.write(`${JSON.stringify(outcome)}\n`);

function idOf(number: number): string {
  return number.toString(16).padStart(32, '0');
}

/** A report, a halt that is set or lifted, an audit entry, a number: together or not at all. */
async function transaction(store: Store, number: number): Promise<void> {
  await store.write(async (w) => {
    await w.setMeta('number', String(number));
    if (number % 2 === 1)
      await w.putHalt({ scope: 'fleet', reason: 'r', actor: 'a', atMs: number });
    else await w.deleteHalt('fleet');
    await w.addReport({
      host,
      seq: number,
      digest: idOf(number),
      envelope: '{}',
      receivedAtMs: number,
    });
    await w.addNewEvents(
      host,
      number,
      [eventOf(artifactOf(1), null, idOf(number), 'downloading')],
      number,
    );
    await w.audit({ atMs: number, actor: 'a', type: 't', subject: 's', details: { number } });
  });
}

async function tryCut(point: number): Promise<readonly Finding[]> {
  const random = simRandom(seed * 7919 + point);
  const cut = cutAt({ events, fileSystem }, point, () => random.unit());
  const name = `control on ${fileSystem}, seed ${seed}, ${cut.name}`;
  const image = join(directory, 'image');
  writeImage(image, sizeBytes, cut.onDisk.slice(lastFlush), base);
  const endBytes = events[point - 1]?.logBytes ?? 0;
  const told = acknowledged.findLast((one) => one.logBytes <= endBytes)?.number ?? 0;
  const mounted = MountedImage.mount(image, fileSystem, at);
  try {
    const state = `${treeState(at)} ${told}`;
    if (lookedInto.has(state)) return [];
    lookedInto.add(state);
    return await lookInto(name, told);
  } catch (error) {
    return [{ fault: 'stuck', text: `${name}: ${String(error)}` }];
  } finally {
    mounted.unmount();
  }
}

async function lookInto(name: string, told: number): Promise<readonly Finding[]> {
  const store = openSqliteStore({ path });
  try {
    const rows = await store.load();
    const found = Number(rows.meta.get('number') ?? 0);
    if (found < told || found > told + 1) {
      return [{ fault: 'lost', text: `${name}: ${told} was acknowledged, ${found} is there` }];
    }
    const parts: Readonly<Record<string, boolean>> = {
      'the halt': (rows.halts.length === 1) === (found % 2 === 1),
      'the audit log': rows.lastAuditId === found && (await store.logSize()) === found,
      'the report': found === 0 || (await store.report(host, found)) !== null,
      'no report of the next': (await store.report(host, found + 1)) === null,
      'the events': (await store.events(host, null, TRANSACTIONS * 2)).length === found,
    };
    const torn = Object.entries(parts).flatMap(([part, isRight]) => (isRight ? [] : [part]));
    if (torn.length > 0) return [{ fault: 'wrong', text: `${name}: ${found}: ${torn.join(', ')}` }];
    // It goes on from there.
    await transaction(store, found + 1);
  } finally {
    await store.close();
  }
  const database = new DatabaseSync(path);
  const [check] = Object.values(database.prepare('PRAGMA integrity_check').get() ?? {});
  database.close();
  return check === 'ok' ? [] : [{ fault: 'wrong', text: `${name}: ${String(check)}` }];
}
