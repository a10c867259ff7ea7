/**
 * ORDER: what GRUB boots, in two copies on a raw partition. Pure. Format and rules: docs/specs/partitions.md, section 2;
 * the same rules stand in grub-config.ts for GRUB and in packaging/guard for the guard, and tests compare the three.
 */
import { must, Problem } from '#/protocol/errors.ts';
import { TRIES_MAX, type PartitionSlot } from './backend.ts';
import { ENV_BLOCK_BYTES, makeEnvBlock, parseEnvBlock } from './env-block.ts';
import { checkedArguments } from './kernel-arguments.ts';

/** Where the copies begin: 4 KiB apart, so that no page and no sector holds both. */
export const ORDER_POSITIONS = [0, 4096] as const;
/** What is read at once: both copies. */
export const ORDER_REGION_BYTES = 8192;
const SEQ_MIN = 100_000_001;
const SEQ_MAX = 999_999_999;

export interface Order {
  readonly default: PartitionSlot;
  readonly trial: PartitionSlot | null;
  /** How often the trial may be booted, 1 to 3; 0 without a trial. */
  readonly tries: number;
  /** Seq of the write that armed the trial: GRUB counts under this number. 0 without a trial. */
  readonly arm: number;
  readonly bad: PartitionSlot | null;
  readonly arguments: Readonly<Record<PartitionSlot, string>>;
}

export interface FoundOrder {
  readonly seq: number;
  readonly order: Order;
  /** Index of the copy that decides. */
  readonly copy: 0 | 1;
}

export interface OrderRegion {
  readonly found: FoundOrder | null;
  readonly problems: readonly string[];
}

export interface OrderWrite {
  readonly position: number;
  readonly bytes: Uint8Array;
}

/** Reads both copies: the valid one with the higher seq decides, the first of two equals. */
export function readOrder(region: Uint8Array): OrderRegion {
  const copies = ORDER_POSITIONS.map((position, index) =>
    decodeCopy(region.subarray(position, position + ENV_BLOCK_BYTES), index === 0 ? 0 : 1),
  );
  let found: FoundOrder | null = null;
  for (const copy of copies)
    if (copy !== null && (found === null || copy.seq > found.seq)) found = copy;
  const problems = copies.flatMap((copy, index) =>
    copy === null ? [`copy ${index + 1} of ORDER is not valid`] : [],
  );
  return { found, problems };
}

/** The writes that make `order` what decides, in their order: one, or two when nothing valid is there. */
export function orderWrites(found: FoundOrder | null, order: Order): readonly OrderWrite[] {
  const seq = found === null ? SEQ_MIN : found.seq + 1;
  if (seq > SEQ_MAX) throw new Problem('E_BOOT', `ORDER was written ${SEQ_MAX - SEQ_MIN} times`);
  const bytes = encodeCopy(seq, order);
  const targets = found === null ? ORDER_POSITIONS : [ORDER_POSITIONS[found.copy === 0 ? 1 : 0]];
  return targets.map((position) => ({ position, bytes }));
}

/** The seq that the next write will have. */
export function nextSeq(found: FoundOrder | null): number {
  return found === null ? SEQ_MIN : found.seq + 1;
}

/** The first content of a new disk: both copies, `slot` is the default, the other one holds nothing. */
export function initialOrder(slot: PartitionSlot, kernelArguments: string): Uint8Array {
  const region = new Uint8Array(ORDER_REGION_BYTES);
  const order: Order = {
    default: slot,
    trial: null,
    tries: 0,
    arm: 0,
    bad: slot === 'a' ? 'b' : 'a',
    arguments: { a: kernelArguments, b: kernelArguments },
  };
  for (const { position, bytes } of orderWrites(null, order)) region.set(bytes, position);
  return region;
}

/** One copy of 1,024 bytes. */
export function encodeCopy(seq: number, order: Order): Uint8Array {
  must(order.bad !== order.default, 'the default is never bad');
  must(order.trial === null || order.trial !== order.default, 'the default is never on trial');
  must(order.trial === null || order.trial !== order.bad, 'a bad slot is never on trial');
  must(order.tries >= 0 && order.tries <= TRIES_MAX, `0 to ${TRIES_MAX} tries: ${order.tries}`);
  return makeEnvBlock(
    [
      ['seq', String(seq)],
      ['v', '1'],
      ['default', order.default],
      ['trial', order.trial ?? 'none'],
      ['tries', String(order.tries)],
      ['arm', String(order.arm)],
      ['bad', order.bad ?? 'none'],
      ['args_a', checkedArguments(order.arguments.a)],
      ['args_b', checkedArguments(order.arguments.b)],
    ],
    ['end', String(seq)],
  );
}

/** A copy by the rule that GRUB applies; null when it is not valid. Malformed parts of a valid one are no trial. */
function decodeCopy(bytes: Uint8Array, copy: 0 | 1): FoundOrder | null {
  const values = parseEnvBlock(bytes);
  const seq = values?.get('seq') ?? '';
  const standard = values?.get('default');
  if (values === null || !/^[1-9][0-9]{8}$/.test(seq) || values.get('end') !== seq) return null;
  if (values.get('v') !== '1' || (standard !== 'a' && standard !== 'b')) return null;
  const bad = slotOf(values.get('bad'));
  const trial = slotOf(values.get('trial'));
  const tries = Number(/^[1-3]$/.exec(values.get('tries') ?? '')?.[0] ?? 0);
  const arm = Number(/^[1-9][0-9]{8}$/.exec(values.get('arm') ?? '')?.[0] ?? 0);
  const isTrial = trial !== null && trial !== standard && trial !== bad && tries > 0 && arm > 0;
  const order: Order = {
    default: standard,
    trial: isTrial ? trial : null,
    tries: isTrial ? tries : 0,
    arm: isTrial ? arm : 0,
    bad: bad === standard ? null : bad,
    arguments: { a: values.get('args_a') ?? '', b: values.get('args_b') ?? '' },
  };
  return { seq: Number(seq), order, copy };
}

function slotOf(value: string | undefined): PartitionSlot | null {
  return value === 'a' || value === 'b' ? value : null;
}

/** How many tries GRUB has left by its own file, of which `tries` is the content; null when it cannot be read. */
export function triesLeft(order: Order, tries: Uint8Array | null): number {
  const values = tries === null ? null : parseEnvBlock(tries);
  // Without its file GRUB boots the default.
  if (values === null) return 0;
  if (values.get('tried') !== String(order.arm)) return order.tries;
  const used = /^[1-3]$/.exec(values.get('used') ?? '')?.[0];
  return used === undefined ? 0 : Math.max(0, order.tries - Number(used));
}
