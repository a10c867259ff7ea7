/**
 * The guard takes a version on trial back, and is killed between one of its renames and the sync after it. The agent starts on what is
 * visible, comes to rest, and a power cut at any moment from its start on takes back what nobody made durable.
 */
import { decodeTicket, encodeTicket } from '#/agent/adapters/ticket.ts';
import { replay, type DiskHistory } from '#/test/support/sim-fs/crash-states.ts';
import { listImage } from '#/test/support/sim-fs/image.ts';
import { simFs } from '#/test/support/sim-fs/sim-fs.ts';
import { explore, type Violation } from './explore.ts';
import { scenarioCases, type ScenarioCase } from './scenarios.ts';
import { runHost, SLOT_ROOT, STATE_DIRECTORY, type World } from './sim-host.ts';

const TITLE = 'an unhealthy version goes back and is not tried again';
const TICKET = `${STATE_DIRECTORY}/ticket`;
const CURRENT = `${SLOT_ROOT}/current`;
const SEED = 3;

export async function exploreGuardFlips(): Promise<readonly Violation[]> {
  const one = (await scenarioCases()).find(({ title }) => title.endsWith(TITLE));
  if (one === undefined) throw new Error(`no scenario ${TITLE}`);
  const found: Violation[] = [];
  for (const killedAfter of ['ticket', 'link'] as const) {
    const { disk, world } = await takeBack(one, killedAfter);
    const models = ['weak', 'ordered'] as const;
    const bounds = { depth: 1, oneIn: 1, seed: SEED, models };
    const { violations } = await explore({ ...one, ...bounds, disk, world });
    found.push(...violations.map(({ path, what }) => ({ path: `${killedAfter}: ${path}`, what })));
  }
  return found;
}

/** The host while the version is on trial and its agent dead, and what the guard does then. */
async function takeBack(
  { disk, world, scenario }: ScenarioCase,
  killedAfter: 'ticket' | 'link',
): Promise<{ readonly disk: DiskHistory; readonly world: World }> {
  const { log } = (await runHost(disk, world, scenario, SEED)).sim;
  const cut = log.findIndex((entry, at) => {
    const now = entry.do === 'mark' ? (entry.world as World).active : world.active;
    if (entry.do !== 'mark' || now === world.active) return false;
    return listImage(replay({ base: disk.base, log: log.slice(0, at) })).has(TICKET);
  });
  const marked = log[cut];
  if (marked?.do !== 'mark') throw new Error('no version came to its trial');
  const before = marked.world as World;
  const past = log.slice(0, cut + 1);
  const sim = simFs(replay({ base: disk.base, log: past }), undefined, past);
  const { files } = sim;
  const ticket = decodeTicket(Buffer.from(listImage(sim.image()).get(TICKET) ?? '', 'latin1'));
  if (ticket === null) throw new Error('no ticket');
  const reason = { code: 'E_DEADLINE', message: 'the guard took the version back' } as const;
  const file = await files.open(`${TICKET}.tmp`, 'create');
  await file.write(encodeTicket({ ...ticket, state: 'rolling-back', reason }), 0);
  await file.sync();
  await files.rename(`${TICKET}.tmp`, TICKET);
  if (killedAfter === 'link') {
    await (await files.open(STATE_DIRECTORY, 'directory')).sync();
    await files.symlink(`releases/${ticket.rollbackSlot}`, `${CURRENT}.tmp`);
    await files.rename(`${CURRENT}.tmp`, CURRENT);
  }
  sim.mark(before);
  return { disk: { base: disk.base, log: sim.log }, world: before };
}
