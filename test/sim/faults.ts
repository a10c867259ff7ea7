/** Makes the faults and orders of a schedule happen. */
import { Problem } from '#/protocol/errors.ts';
import type { Client } from '#/protocol/client.ts';
import type { GroupName, HostId, RolloutId } from '#/protocol/ids.ts';
import type { Image } from '#/test/support/sim-fs/image.ts';
import { admit } from './admit.ts';
import type { SimControl } from './control.ts';
import { SimHost, type HostOptions } from './host.ts';
import { fineWeather, type Network } from './network.ts';
import type { ControlOracle } from './oracle-control.ts';
import type { HostOracle, Truth } from './oracle-host.ts';
import type { Fault, Order, SimGroup } from './schedule.ts';
import type { SimTime } from './time.ts';
import type { Trace } from './trace.ts';
import type { SimVersion } from './versions.ts';

/** Everything that there is in one history. */
export interface Fleet {
  readonly seed: number;
  readonly time: SimTime;
  readonly trace: Trace;
  readonly control: SimControl;
  readonly network: Network;
  readonly versions: readonly SimVersion[];
  /** Hosts, and after them the clones of some. */
  readonly machines: SimHost[];
  /** Identities that were cloned: whatever they do, they may be shut out. */
  readonly clonedIds: Set<string>;
  readonly hostTruth: HostOracle;
  readonly controlTruth: ControlOracle;
  readonly snapshots: Map<number, { readonly image: Image; readonly truth: Truth }>;
  /** Nothing is broken any more. */
  isCalm: boolean;
  readonly hostOptions: (index: number) => HostOptions;
  readonly onViolation: (what: string) => void;
}

const ORDER_TRIES = 8;
const ORDER_RETRY_MS = 20_000;
/** A kill that waits for its statement or change of the disk waits at most so long. */
const ARMED_MS = 120_000;
const MAX_MACHINES_MORE = 4;

/** Lets one fault happen now. */
export function applyFault(fleet: Fleet, fault: Fault): void {
  const { time } = fleet;
  const later = (forMs: number, work: () => void): void => void time.at(time.nowMs() + forMs, work);
  switch (fault.kind) {
    case 'kill':
      atEffect(fleet, fault.host, fault.ops, (host) => host.kill());
      return;
    case 'power-cut':
      atEffect(fleet, fault.host, fault.ops, (host) => {
        host.powerCut(fault.model, fault.draw);
        checkKept(fleet, host);
      });
      return;
    case 'restart-agent':
      hostOf(fleet, fault.host)?.restart();
      return;
    case 'off': {
      const host = hostOf(fleet, fault.host);
      host?.switchOff();
      later(fault.forMs, () => {
        if (host?.isOff === true) host.switchOn();
      });
      return;
    }
    case 'disk': {
      const host = hostOf(fleet, fault.host);
      if (host === null) return;
      host.trouble = fault.trouble;
      later(fault.forMs, () => {
        host.trouble = null;
      });
      return;
    }
    case 'weather': {
      const { loss, twice, delayMs, isCut } = fault;
      const hit = fleet.machines.filter(({ index }) => fault.host === null || fault.host === index);
      for (const { index } of hit) {
        fleet.network.set(index, { loss, twice, delayMs, isCut });
        later(fault.forMs, () => fleet.network.set(index, fineWeather));
      }
      return;
    }
    case 'clock': {
      const host = hostOf(fleet, fault.host);
      if (host === null) return;
      host.clockErrorMs = fault.errorMs;
      later(fault.forMs, () => {
        host.clockErrorMs = 0;
      });
      return;
    }
    case 'snapshot': {
      const host = hostOf(fleet, fault.host);
      if (host === null) return;
      const image = host.imageAfter('ordered', fault.draw);
      fleet.snapshots.set(fault.host, { image, truth: fleet.hostTruth.copyTruth(host) });
      return;
    }
    case 'rewind': {
      const host = hostOf(fleet, fault.host);
      const snapshot = fleet.snapshots.get(fault.host);
      fleet.snapshots.delete(fault.host);
      if (host === null || snapshot === undefined) return;
      fleet.hostTruth.setTruth(host, snapshot.truth);
      host.rewind(snapshot.image);
      return;
    }
    case 'clone':
      clone(fleet, fault.host, fault.draw);
      return;
    case 'kill-control':
      killControl(fleet, fault.statements, () => startLater(fleet, fault.forMs));
      return;
    case 'restore-control':
      fleet.control.kill();
      fleet.control.restore(fault.ago);
      startLater(fleet, fault.forMs);
      return;
    case 'order':
      order(fleet, fault, 0);
  }
}

function hostOf(fleet: Fleet, index: number): SimHost | null {
  const host = fleet.machines[index];
  return host === undefined || host.isOff ? null : host;
}

/** At the n-th change of the disk from now; at once for 0, and at the latest when it has waited long enough. */
function atEffect(fleet: Fleet, index: number, ops: number, act: (host: SimHost) => void): void {
  const host = hostOf(fleet, index);
  if (host === null) return;
  if (ops === 0) {
    act(host);
    return;
  }
  let isDone = false;
  const once = (): void => {
    if (isDone || host.isOff) return;
    isDone = true;
    host.disarm();
    act(host);
  };
  host.arm(ops, once);
  fleet.time.at(fleet.time.nowMs() + ARMED_MS, () => {
    if (!fleet.isCalm) once();
  });
}

function checkKept(fleet: Fleet, host: SimHost): void {
  fleet.hostTruth.checkKept(host).catch((error: unknown) => {
    fleet.onViolation(`host ${host.index}: what was durable is unreadable: ${String(error)}`);
  });
}

function clone(fleet: Fleet, index: number, draw: number): void {
  const of = hostOf(fleet, index);
  if (of === null || of.id === null || fleet.machines.length > fleet.versions.length * 50) return;
  if (fleet.machines.filter((host) => host.isClone).length >= MAX_MACHINES_MORE) return;
  fleet.clonedIds.add(of.id);
  const options = fleet.hostOptions(fleet.machines.length);
  const copy = new SimHost(options, of.imageAfter('ordered', draw), of.machine);
  fleet.machines.push(copy);
  fleet.hostTruth.setTruth(copy, fleet.hostTruth.copyTruth(of));
  copy.adopt(of);
}

function killControl(fleet: Fleet, statements: number, onKilled: () => void): void {
  if (!fleet.control.isUp) return;
  fleet.control.armKill(statements, onKilled);
  fleet.time.at(fleet.time.nowMs() + ARMED_MS, () => fleet.control.killArmed());
}

function startLater(fleet: Fleet, forMs: number): void {
  fleet.time.at(fleet.time.nowMs() + forMs, () => {
    fleet.control.start().catch((error: unknown) => {
      fleet.onViolation(`control does not start: ${String(error)}`);
    });
  });
}

/** Orders go on until control takes or refuses them. A refusal is an answer: operators often come too late. */
function order(fleet: Fleet, wanted: Order, tries: number): void {
  const again = (): void => {
    if (tries >= ORDER_TRIES && !fleet.isCalm) return;
    fleet.time.at(fleet.time.nowMs() + ORDER_RETRY_MS, () => {
      // In the calm nothing is ordered any more but that the fleet may go on.
      if (!fleet.isCalm || wanted.order === 'lift') order(fleet, wanted, tries + 1);
    });
  };
  carryOut(fleet, wanted).then(
    () => fleet.trace.note(`order ${wanted.order} is taken`),
    (error: unknown) => {
      if (!(error instanceof Problem)) {
        fleet.onViolation(`order ${wanted.order}: ${String(error)}`);
        return;
      }
      fleet.trace.note(`order ${wanted.order}: ${error.code}`);
      if (error.kind === 'unavailable' && error.code !== 'E_HALTED') again();
    },
  );
}

async function carryOut(fleet: Fleet, wanted: Order): Promise<void> {
  const { control, versions } = fleet;
  const client = control.operator;
  const reason = 'a bad moment';
  switch (wanted.order) {
    case 'pin': {
      const version = versions[wanted.version];
      if (version === undefined) return;
      await admit(control, version);
      const body = { artifactId: version.artifactId, reason };
      await client.call('groupPin', { params: { group: wanted.group as GroupName }, body });
      return;
    }
    case 'unpin':
      await client.call('groupUnpin', { params: { group: wanted.group as GroupName } });
      return;
    case 'pause':
    case 'resume':
    case 'promote':
    case 'abort': {
      const rollout = await activeRollout(client, wanted.group);
      if (rollout === null) return;
      const params = { rollout };
      if (wanted.order === 'abort')
        await client.call('rolloutAbort', { params, body: { reason, revert: wanted.revert } });
      else if (wanted.order === 'pause')
        await client.call('rolloutPause', { params, body: { reason } });
      else if (wanted.order === 'resume')
        await client.call('rolloutResume', { params, body: { reason } });
      else await client.call('rolloutPromote', { params, body: { reason } });
      return;
    }
    case 'halt':
    case 'lift': {
      const body = {
        reason,
        ...(wanted.group === null ? {} : { group: wanted.group as GroupName }),
      };
      await client.call(wanted.order, { body });
      return;
    }
    case 'pin-host': {
      const version = versions[wanted.version];
      const host = idOf(fleet, wanted.host);
      if (version === undefined || host === null) return;
      await admit(control, version);
      await client.call('hostPin', {
        params: { host },
        body: { artifactId: version.artifactId, reason },
      });
      return;
    }
    case 'unpin-host':
    case 'hold':
    case 'unhold':
    case 'retry':
    case 'rollback': {
      const host = idOf(fleet, wanted.host);
      if (host === null) return;
      const params = { host };
      if (wanted.order === 'unpin-host') await client.call('hostUnpin', { params });
      else if (wanted.order === 'hold') await client.call('hostHold', { params, body: { reason } });
      else if (wanted.order === 'unhold') await client.call('hostUnhold', { params });
      else await client.call('hostAction', { params, body: { action: wanted.order, reason } });
      return;
    }
    case 'revoke': {
      const version = versions[wanted.version];
      // The first version is what everything goes back to; a fleet that revokes it has nothing left.
      if (version === undefined || wanted.version === 0) return;
      await client.call('releaseRevoke', {
        params: { artifact: version.artifactId },
        body: { reason },
      });
    }
  }
}

function idOf(fleet: Fleet, index: number): HostId | null {
  return fleet.machines[index]?.id ?? null;
}

async function activeRollout(client: Client, group: SimGroup): Promise<RolloutId | null> {
  const view = await client.call('groupShow', { params: { group: group as GroupName } });
  return view.activeRollout;
}
