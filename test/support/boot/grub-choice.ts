/** What GRUB does with an ORDER and its file of tries, in TypeScript: the table of docs/specs/partitions.md. */
import type { PartitionSlot } from '#/agent/adapters/boot/backend.ts';
import { makeEnvBlock } from '#/agent/adapters/boot/env-block.ts';
import { readOrder, triesLeft } from '#/agent/adapters/boot/order.ts';

export interface GrubChoice {
  readonly slot: PartitionSlot;
  /** The file of tries after the boot. */
  readonly tries: Uint8Array;
}

/** One boot of a disk on which both slots have a kernel. */
export function grubChoice(region: Uint8Array, tries: Uint8Array): GrubChoice {
  const order = readOrder(region).found?.order ?? null;
  if (order === null) return { slot: 'a', tries };
  const left = order.trial === null ? 0 : triesLeft(order, tries);
  if (order.trial === null || left === 0) return { slot: order.default, tries };
  const used = order.tries - left + 1;
  return {
    slot: order.trial,
    tries: makeEnvBlock([
      ['tried', String(order.arm)],
      ['used', String(used)],
    ]),
  };
}
