/** The partitions of a host as loop devices of their own: this kernel need not scan partition tables for that. Needs root. */
import { mkdir, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { makeEnvBlock } from '#/agent/adapters/boot/env-block.ts';
import { TRIES_PATH } from '#/agent/adapters/boot/grub-config.ts';
import { initialOrder } from '#/agent/adapters/boot/order.ts';
import type { PartitionSlot } from '#/agent/adapters/boot/backend.ts';
import { attachLoop, type LoopDevice } from '#/test/support/install/small-file-system.ts';

export const partUuids = {
  a: 'aaaaaaaa-0000-4000-8000-000000000001',
  b: 'bbbbbbbb-0000-4000-8000-000000000002',
} as const satisfies Record<PartitionSlot, string>;

const ENV_BYTES = 1024 * 1024;

export interface HostDisk extends AsyncDisposable {
  readonly roots: Readonly<Record<PartitionSlot, LoopDevice>>;
  readonly env: LoopDevice;
  /** The files behind them. */
  readonly files: Readonly<Record<PartitionSlot | 'env', string>>;
  /** A directory in the place of the ESP: its file system is tried in a virtual machine. */
  readonly esp: string;
}

/** A disk whose GRUB boots slot `first`; old bytes are everywhere in both roots. */
export async function makeDisk(
  directory: string,
  slotBytes: number,
  first: PartitionSlot,
): Promise<HostDisk> {
  await mkdir(directory, { recursive: true });
  const files = {
    a: join(directory, 'root-a.img'),
    b: join(directory, 'root-b.img'),
    env: join(directory, 'env.img'),
  };
  const a = await attachLoop(files.a, slotBytes, 0xa5);
  const b = await attachLoop(files.b, slotBytes, 0x5a);
  const env = await attachLoop(files.env, ENV_BYTES, 0);
  await writeFile(env.path, initialOrder(first, 'quiet'));
  const esp = join(directory, 'esp');
  await mkdir(dirname(esp + TRIES_PATH), { recursive: true });
  await writeFile(esp + TRIES_PATH, makeEnvBlock([]));
  return {
    roots: { a, b },
    env,
    files,
    esp,
    async [Symbol.asyncDispose]() {
      for (const loop of [a, b, env]) await loop[Symbol.asyncDispose]();
    },
  };
}
