/** What the firmware and GRUB do at a boot, in so far as an agent sees it: a slot, and a try that is counted. */
import { readFile, writeFile } from 'node:fs/promises';
import { makeEnvBlock, parseEnvBlock } from '#/agent/adapters/boot/env-block.ts';
import { TRIES_PATH } from '#/agent/adapters/boot/grub-config.ts';
import { ORDER_REGION_BYTES, readOrder } from '#/agent/adapters/boot/order.ts';
import type { PartitionSlot } from '#/agent/adapters/boot/backend.ts';
import type { HostDisk } from './disk.ts';

/** The slot that GRUB boots now, by docs/specs/partitions.md, section 2; counts the try. */
export async function grubBoots(disk: HostDisk): Promise<PartitionSlot> {
  const region = (await readFile(disk.env.path)).subarray(0, ORDER_REGION_BYTES);
  const order = readOrder(region).found?.order;
  if (order === undefined) return 'a';
  const path = disk.esp + TRIES_PATH;
  const counted = parseEnvBlock(await readFile(path));
  if (order.trial === null || counted === null) return order.default;
  const isSame = counted.get('tried') === String(order.arm);
  const used = isSame ? Number(counted.get('used')) : 0;
  if (used >= order.tries) return order.default;
  const lines = [
    ['tried', String(order.arm)],
    ['used', String(used + 1)],
  ] as const;
  await writeFile(path, makeEnvBlock(lines), { flag: 'r+' });
  return order.trial;
}
