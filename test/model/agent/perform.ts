/** Operations in the world of the explorer, with the invariants that each has to respect at the moment it is carried out. */
import type { OperationEffect, OperationResults } from '#/agent/core/effect.ts';
import type { Failure } from '#/agent/core/event.ts';
import type { SlotId } from '#/agent/core/facts.ts';
import { operationOf } from '#/agent/core/operation.ts';
import type { VersionId } from '#/protocol/ids.ts';
import {
  factsOf,
  failureOf,
  isHealthy,
  offerOf,
  type Slot,
  startFactsOf,
  V1,
  V2,
  Violation,
  type World,
} from './world.ts';

export type Performed =
  | { readonly world: World; readonly result: OperationResults[OperationEffect['do']] }
  | { readonly world: World; readonly failure: Failure };

/** I11: what is carried out stands in the journal before. */
export function checkIntent(world: World, effect: OperationEffect): void {
  if (effect.do === 'check-store' || effect.do === 'resolve') return;
  const { journal } = world.disk;
  const intended = journal === null ? null : operationOf(journal);
  if (intended?.do !== effect.do) {
    throw new Violation(
      'I11',
      `${effect.do} runs, the journal intends ${intended?.do ?? 'nothing'}`,
    );
  }
  checkPair(world, effect);
}

/** I16: what is named is always an artifact with the config set that was pinned with it, and a slot is started as what it holds. */
function checkPair(world: World, effect: OperationEffect): void {
  if (!('artifactId' in effect) || effect.artifactId === null) return;
  const named = effect.artifactId;
  if (named !== V1 && named !== V2) {
    throw new Violation('I16', `${effect.do} names ${named}, which was never pinned`);
  }
  if (effect.do === 'activate' && effect.slot !== null) {
    const held = artifactIn(world, effect.slot);
    if (held !== null && held !== named) {
      throw new Violation('I16', `slot ${effect.slot} holds ${held} and is started as ${named}`);
    }
  }
}

function setSlot(world: World, slot: SlotId, change: Partial<Slot>): World {
  const before = world.slots[slot] ?? { artifact: null, status: 'empty', complete: false };
  return { ...world, slots: { ...world.slots, [slot]: { ...before, ...change } } };
}

/** I2: neither the live slot nor the one that the ticket pins for the way back. */
function checkWritable(world: World, slot: SlotId, what: string): void {
  const { ticket } = world.disk;
  if (slot === world.live) throw new Violation('I2', `${what} on the live slot ${slot}`);
  if (ticket !== null && ticket !== 'damaged' && ticket.rollbackSlot === slot) {
    throw new Violation('I2', `${what} on slot ${slot}, which the ticket pins for the way back`);
  }
}

/** I3, I7, I11: only a verified, complete, not denied slot is armed or switched to, and with its ticket. */
function checkSelectable(world: World, slot: SlotId, what: string): void {
  const of = world.slots[slot];
  if (of === undefined || !of.complete || !['verified', 'good'].includes(of.status)) {
    throw new Violation('I3', `${what} of slot ${slot}, which is ${of?.status ?? 'missing'}`);
  }
  const isDenied = world.disk.denied.some((entry) => entry.artifactId === of.artifact);
  if (isDenied) throw new Violation('I7', `${what} of the denied version in slot ${slot}`);
  const { ticket } = world.disk;
  if (ticket === null || ticket === 'damaged' || ticket.targetSlot !== slot) {
    throw new Violation('I11', `${what} of slot ${slot} without its ticket`);
  }
  const fallback = ticket.rollbackSlot === null ? null : world.slots[ticket.rollbackSlot];
  if (fallback !== null && (fallback?.status !== 'good' || !fallback.complete)) {
    throw new Violation('I1', `${what} of slot ${slot}, and the way back is not good`);
  }
  const { mem } = world.agent ?? {};
  const attempt = mem !== undefined && 'attempt' in mem ? mem.attempt.id : '';
  if (world.ledger.withdrawn === attempt) {
    throw new Violation('I15', `${what} of slot ${slot} after its attempt was withdrawn`);
  }
}

/** Makes a slot live, and counts that (I6). */
export function makeLive(world: World, slot: SlotId | null): World {
  if (slot === world.live) return world;
  const { ledger } = world;
  const { ticket } = world.disk;
  const id = ticket === null || ticket === 'damaged' ? 'none' : ticket.attempt;
  const count = (ledger.switches[id] ?? 0) + 1;
  if (count > 6) throw new Violation('I6', `attempt ${id} switched ${count} times`);
  return {
    ...world,
    live: slot,
    ledger: { ...ledger, switches: { ...ledger.switches, [id]: count } },
  };
}

function artifactIn(world: World, slot: SlotId | null): VersionId | null {
  return slot === null ? null : (world.slots[slot]?.artifact ?? null);
}

/** Starts what is live; a version may take the whole environment down with it. */
export function startLive(world: World): World {
  const active = artifactIn(world, world.live);
  const isFatal = active === V2 && world.nature === 'bad-environment';
  return { ...world, active, isEnvironmentBad: world.isEnvironmentBad || isFatal };
}

const nothing = {};

/** Carries the operation out, as a healthy world does it. */
export function perform(world: World, effect: OperationEffect): Performed {
  checkIntent(world, effect);
  const { disk } = world;
  switch (effect.do) {
    case 'resolve':
      return { world, result: { offer: offerOf(world, V2) } };
    case 'resolve-file':
      return { world, result: { offer: offerOf(world, V2) } };
    case 'resolve-held':
      return { world, result: { offer: offerOf(world, effect.artifactId) } };
    case 'observe':
      return { world, result: { facts: factsOf(world) } };
    case 'check-store':
      return { world, result: startFactsOf(world) };
    case 'window':
      return { world, result: { open: true, opensAt: null, closesAt: null } };
    case 'drain':
    case 'undrain':
      return { world, result: nothing };
    case 'probe': {
      const ok = isHealthy(world);
      const isTrial = world.agent?.mem.at === 'trial';
      const healthyRounds = isTrial ? (ok ? world.ledger.healthyRounds + 1 : 0) : 0;
      const results = effect.checks.map((name) => ({ name, ok, durationMs: 1, detail: '' }));
      const ledger = { ...world.ledger, healthyRounds: Math.min(healthyRounds, 2) };
      return { world: { ...world, ledger }, result: { results } };
    }
    case 'write-ticket':
      return writeTicket(world, effect);
    case 'remove-ticket':
      return { world: { ...world, disk: { ...disk, ticket: null } }, result: nothing };
    case 'deny': {
      const others = disk.denied.filter((entry) => entry.artifactId !== effect.entry.artifactId);
      const denied = [...others, effect.entry];
      return { world: { ...world, disk: { ...disk, denied } }, result: nothing };
    }
    case 'allow': {
      const denied = disk.denied.filter((entry) => entry.artifactId !== effect.artifactId);
      return { world: { ...world, disk: { ...disk, denied } }, result: nothing };
    }
    case 'raise-floor':
      if (effect.release < disk.floor) throw new Violation('I8', `floor set to ${effect.release}`);
      return { world: { ...world, disk: { ...disk, floor: effect.release } }, result: nothing };
    case 'preflight':
    case 'begin-slot':
    case 'download':
    case 'verify':
    case 'mark-slot':
    case 'discard-slot':
    case 'prune':
      return performSlot(world, effect);
    case 'arm':
    case 'disarm':
    case 'switch':
    case 'activate':
    case 'commit':
    case 'roll-back':
      return performBoot(world, effect);
  }
}

type Do<D extends OperationEffect['do']> = Extract<OperationEffect, { readonly do: D }>;

function writeTicket(world: World, { ticket }: Do<'write-ticket'>): Performed {
  const seen = world.ledger.ticket;
  if (seen?.attempt === ticket.attempt && seen.armBootId === ticket.armBootId) {
    if (ticket.deadlineRunMs > seen.deadlineRunMs && world.disk.ticket !== null) {
      throw new Violation('I10', 'the deadline of a trial was extended');
    }
    if (ticket.bootsUsed < seen.bootsUsed) throw new Violation('I10', 'a boot was taken back');
  }
  const { attempt, deadlineRunMs, bootsUsed, armBootId } = ticket;
  const isCommit = ticket.state === 'committed';
  if (isCommit) checkCommit(world, ticket.targetSlot);
  const ledger = { ...world.ledger, ticket: { attempt, deadlineRunMs, bootsUsed, armBootId } };
  return { world: { ...world, disk: { ...world.disk, ticket }, ledger }, result: {} };
}

/** I14: what becomes final is live, runs, and was seen healthy, in its last rounds and through the soak. */
function checkCommit(world: World, slot: SlotId): void {
  if (world.live !== slot)
    throw new Violation('I14', `commit of slot ${slot}, ${world.live} is live`);
  const { ticket } = world.disk;
  // What failed before the switch too is no reason to go back (F45).
  const isJudged = ticket === null || ticket === 'damaged' || ticket.baselinePassed.length > 0;
  if (isJudged && world.ledger.healthyRounds < 2) {
    throw new Violation('I14', `commit of slot ${slot} that was not healthy through its soak`);
  }
}

function performSlot(
  world: World,
  effect: Do<
    'preflight' | 'begin-slot' | 'download' | 'verify' | 'mark-slot' | 'discard-slot' | 'prune'
  >,
): Performed {
  switch (effect.do) {
    case 'preflight': {
      const other = world.live === 'a' ? 'b' : 'a';
      const slot = world.kind === 'partition' ? other : effect.artifactId;
      return { world, result: { slot, identity: slot } };
    }
    case 'begin-slot': {
      checkWritable(world, effect.slot, 'begin');
      const begun = { artifact: effect.artifactId, status: 'writing', complete: false } as const;
      return { world: setSlot(world, effect.slot, begun), result: nothing };
    }
    case 'download': {
      checkWritable(world, effect.slot, 'download');
      if (world.slots[effect.slot]?.status !== 'writing') {
        throw new Violation('I3', `download into slot ${effect.slot} that was not marked first`);
      }
      const result = {
        fetchedBytes: 1,
        reusedBytes: 0,
        durationMs: 1,
        rottenSeedChunks: 0,
        failedSources: 0,
        way: 'whole' as const,
        whyNoPatch: 'no-seed',
        unpatchedChunks: 0,
        savedBytes: 0,
      };
      return { world: setSlot(world, effect.slot, { status: 'writing', complete: true }), result };
    }
    case 'verify': {
      const slot = world.slots[effect.slot];
      if (slot === undefined || !slot.complete || slot.artifact !== effect.artifactId) {
        return { world, failure: failureOf('E_SLOT', 'damaged') };
      }
      const status = slot.status === 'good' ? 'good' : 'verified';
      return { world: setSlot(world, effect.slot, { status }), result: nothing };
    }
    case 'mark-slot':
      if (effect.status !== 'good') checkWritable(world, effect.slot, `mark ${effect.status}`);
      return { world: setSlot(world, effect.slot, { status: effect.status }), result: nothing };
    case 'discard-slot': {
      checkWritable(world, effect.slot, 'discard');
      const gone = { artifact: null, status: 'empty', complete: false } as const;
      return { world: setSlot(world, effect.slot, gone), result: nothing };
    }
    case 'prune': {
      const good = effect.keep.filter((slot) => world.slots[slot]?.status === 'good');
      const held = Object.values(world.slots).filter((slot) => slot.status === 'good').length;
      if (good.length < Math.min(2, held)) {
        throw new Violation('I1', `prune keeps ${good.length} good versions of ${held}`);
      }
      if (world.kind === 'partition') return { world, result: nothing };
      const kept = Object.entries(world.slots).filter(([slot]) => effect.keep.includes(slot));
      return { world: { ...world, slots: Object.fromEntries(kept) }, result: nothing };
    }
  }
}

function performBoot(
  world: World,
  effect: Do<'arm' | 'disarm' | 'switch' | 'activate' | 'commit' | 'roll-back'>,
): Performed {
  const { boot, kind } = world;
  switch (effect.do) {
    case 'arm': {
      checkSelectable(world, effect.slot, 'arm');
      if (kind !== 'partition') return { world, result: nothing };
      const trial = { slot: effect.slot, triesLeft: effect.tries };
      return { world: { ...world, boot: { ...boot, trial } }, result: nothing };
    }
    case 'disarm':
      return { world: { ...world, boot: { ...boot, trial: null } }, result: nothing };
    case 'switch':
      checkSelectable(world, effect.slot, 'switch');
      if (kind !== 'partition') {
        return { world: makeLive(world, effect.slot), result: { outcome: 'switched' } };
      }
      return { world: { ...world, rebootAsked: true }, result: { outcome: 'reboot-requested' } };
    case 'activate': {
      if (effect.slot !== world.live) {
        throw new Violation('I9', `activate of ${effect.slot}, ${world.live} is live`);
      }
      const isDead = effect.artifactId === V2 && world.nature === 'dead-on-start';
      if (isDead) return { world, failure: failureOf('E_ACTIVATION', 'unavailable') };
      return { world: startLive(world), result: nothing };
    }
    case 'commit':
      checkCommit(world, effect.slot);
      if (kind !== 'partition') return { world, result: nothing };
      return {
        world: { ...world, boot: { defaultSlot: effect.slot, trial: null } },
        result: nothing,
      };
    case 'roll-back':
      return performRollBack(world, effect);
  }
}

function performRollBack(world: World, { slot, bad }: Do<'roll-back'>): Performed {
  const { ticket } = world.disk;
  if (ticket !== null && ticket !== 'damaged' && ticket.rollbackSlot !== slot) {
    throw new Violation('I9', `rollback to ${slot}, the ticket pins ${ticket.rollbackSlot}`);
  }
  if (world.nature === 'one-way-unhealthy') {
    throw new Violation('I9', 'a one-way version was rolled back');
  }
  if (slot === bad) throw new Violation('I1', `rollback to the bad slot ${slot}`);
  if (world.kind !== 'partition') {
    return { world: makeLive(world, slot), result: { outcome: 'switched' } };
  }
  const marked = bad === world.live ? world : setSlot(world, bad, { status: 'bad' });
  const back: World = { ...marked, boot: { defaultSlot: slot, trial: null } };
  return world.live === slot
    ? { world: back, result: { outcome: 'switched' } }
    : { world: { ...back, rebootAsked: true }, result: { outcome: 'reboot-requested' } };
}
