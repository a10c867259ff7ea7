/** What must hold once the fleet rests: one good version per host, every attempt ended once, control agreeing. */
import { existsSync, readdirSync, readlinkSync } from 'node:fs';
import { basename, join } from 'node:path';
import { terminalPhases } from '#/protocol/documents.ts';
import type { HostId } from '#/protocol/ids.ts';
import { type Fleet, type FleetHost, waitFor } from '#/test/support/fleet/fleet.ts';
import { get } from '#/test/support/fleet/load.ts';
import type { Told } from './round.ts';

const TERMINAL: ReadonlySet<string> = new Set(terminalPhases);
const SERVICE_TIMEOUT_MS = 20_000;
const TIMELINE = '500';

/** The things that are wrong, in words; empty when all is well. */
export async function checkFleet(fleet: Fleet, told: Told): Promise<readonly string[]> {
  const lists = await Promise.all(fleet.hosts.map((host) => checkHost(fleet, host, told)));
  return lists.flat();
}

async function checkHost(fleet: Fleet, host: FleetHost, told: Told): Promise<readonly string[]> {
  const problems: string[] = [];
  const say = (words: string): void => void problems.push(`${host.name}: ${words}`);
  const live = basename(readlinkSync(join(host.directory, 'slots/current')));
  const params = { host: host.id as HostId };
  const detail = await fleet.api().call('hostShow', { params });
  if (detail.running !== live) say(`control believes ${detail.running}, the link says ${live}`);
  if (told.isBad && detail.runningVersion === `r${told.round}`) say('the bad version is live');
  if (existsSync(join(host.directory, 'state/ticket'))) say('a ticket is left over');
  const slots = readdirSync(join(host.directory, 'slots/releases'));
  if (!slots.includes(live)) say('the live version is not among the releases');
  const answer = await answerOf(host);
  if (answer !== detail.runningVersion)
    say(`the service answers ${answer}, not ${detail.runningVersion}`);
  for (const words of await checkAttempts(fleet, host)) say(words);
  for (const attempt of detail.attempts) {
    if (attempt.outcome === 'open')
      say(`attempt ${attempt.id} of ${attempt.version} is still open`);
  }
  return problems;
}

/** A service that was killed itself is started again by its agent; until then nothing answers. */
async function answerOf(host: FleetHost): Promise<string | null> {
  try {
    return await waitFor(`the service of ${host.name} answers`, SERVICE_TIMEOUT_MS, async () => {
      const answer = await get(host.servicePort, '/healthz');
      return answer?.status === 200 ? answer.body.trim() : null;
    });
  } catch {
    return null;
  }
}

async function checkAttempts(fleet: Fleet, host: FleetHost): Promise<readonly string[]> {
  const params = { host: host.id as HostId };
  const { items } = await fleet.api().call('hostTimeline', { params, query: { limit: TIMELINE } });
  const ends = new Map<string, number>();
  for (const entry of items) {
    if (entry.attempt === null) continue;
    ends.set(entry.attempt, (ends.get(entry.attempt) ?? 0) + (TERMINAL.has(entry.kind) ? 1 : 0));
  }
  // The oldest attempt of a long list may be cut off at its beginning, never at its end.
  return [...ends]
    .filter(([, count]) => count !== 1)
    .map(([id, count]) => `attempt ${id} has ${count} ends`);
}
