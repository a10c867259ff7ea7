/**
 * GRUB with two slots: the decision stands in ORDER on a raw partition, GRUB counts tries in a file of its own on the ESP.
 * Neither writes what the other writes. docs/specs/partitions.md, section 2.
 */
import type { FilePort } from '#/agent/ports.ts';
import { readFile } from '#/agent/adapters/durable.ts';
import { Problem } from '#/protocol/errors.ts';
import {
  type BootBackend,
  type BootRecord,
  otherSlot,
  type PartitionSlot,
  TRIES_MAX,
} from './backend.ts';
import { ENV_BLOCK_BYTES, parseEnvBlock } from './env-block.ts';
import { TRIES_PATH } from './grub-config.ts';
import { checkedArguments } from './kernel-arguments.ts';
import {
  type FoundOrder,
  nextSeq,
  type Order,
  ORDER_REGION_BYTES,
  orderWrites,
  readOrder,
  triesLeft,
} from './order.ts';
import type { RawRegion } from './raw-region.ts';
import { grubSurvives } from './survives.ts';

export interface GrubOptions {
  /** The partition `switchback-env`. */
  readonly region: RawRegion;
  readonly files: FilePort;
  /** Where the ESP is mounted. */
  readonly esp: string;
  /** Arguments of the running kernel without `root=` and `ro`: what a lost ORDER is made anew with. */
  readonly runningArguments: string;
}

/** The backend of a host whose GRUB has the configuration of grub-config.ts. */
export function grubBackend(options: GrubOptions): BootBackend {
  const { region, files, esp } = options;
  const read = async () => readOrder(await region.read(ORDER_REGION_BYTES));
  const readTries = () =>
    readFile(files, esp + TRIES_PATH, ENV_BLOCK_BYTES).catch((error: unknown) => {
      if (error instanceof Problem && error.code === 'E_STATE') return null;
      throw error;
    });

  /** Writes `order` and reads it back past the page cache. */
  const write = async (found: FoundOrder | null, order: Order): Promise<void> => {
    for (const { position, bytes } of orderWrites(found, order)) {
      await region.write(position, bytes);
      const shown = await region.read(ORDER_REGION_BYTES);
      if (Buffer.compare(shown.subarray(position, position + bytes.byteLength), bytes) !== 0) {
        throw new Problem('E_BOOT', `ORDER does not read back at byte ${position}`, { position });
      }
    }
  };

  /** The order that is there; of a lost one what `known` says, the default of a slot that is named by its operation. */
  const change = async (
    known: PartitionSlot,
    to: (order: Order, found: FoundOrder | null) => Order,
  ): Promise<void> => {
    const { found } = await read();
    const args = found === null ? checkedArguments(options.runningArguments) : '';
    const before: Order = found?.order ?? {
      ...{ default: known, trial: null, tries: 0, arm: 0, bad: null },
      arguments: { a: args, b: args },
    };
    const after = to(before, found);
    if (found !== null && after === before) return;
    await write(found, after);
  };

  return {
    kind: 'grub',
    survives: grubSurvives,
    triesMax: TRIES_MAX,
    tellsAttempt: true,

    async selfTest() {
      const { found, problems } = await read();
      const tries = await readTries();
      const isUsable = tries?.byteLength === ENV_BLOCK_BYTES && parseEnvBlock(tries) !== null;
      const lost = isUsable ? [] : [`${esp}${TRIES_PATH} is not an environment block of GRUB`];
      if (found === null) return [...problems, ...lost];
      // The same order once more: shows that writing works, and repairs the other copy.
      await write(found, found.order);
      return lost;
    },

    async observe(): Promise<BootRecord> {
      const { found, problems } = await read();
      if (found === null) return { default: null, trial: null, bad: [], problems };
      const { order } = found;
      const trial =
        order.trial === null
          ? null
          : { slot: order.trial, triesLeft: triesLeft(order, await readTries()) };
      return {
        default: order.default,
        trial,
        bad: order.bad === null ? [] : [order.bad],
        problems,
      };
    },

    markBad: (slot) =>
      change(otherSlot(slot), (order) => {
        if (order.default === slot) {
          throw new Problem('E_BOOT', `slot ${slot} is the default and cannot be marked bad`);
        }
        return order.bad === slot && order.trial === null
          ? order
          : { ...withoutTrial(order), bad: slot };
      }),

    async installBootFiles(slot, given) {
      if (given.source.kind !== 'linux') {
        throw new Problem('E_BOOT', 'GRUB starts /boot/vmlinuz of the image, which has none');
      }
      const args = checkedArguments(given.kernelArguments);
      await change(otherSlot(slot), (order) =>
        order.arguments[slot] === args
          ? order
          : { ...order, arguments: { ...order.arguments, [slot]: args } },
      );
    },

    arm: (slot, tries) =>
      change(otherSlot(slot), (order, found) => {
        if (order.default === slot) {
          throw new Problem('E_BOOT', `slot ${slot} is the default and cannot be on trial`);
        }
        if (order.trial === slot) return order;
        const bad = order.bad === slot ? null : order.bad;
        return { ...order, trial: slot, tries: within(tries), arm: nextSeq(found), bad };
      }),

    disarm: (slot) =>
      change(otherSlot(slot), (order) => (order.trial === slot ? withoutTrial(order) : order)),

    commit: (slot) =>
      change(slot, (order) => {
        if (order.default === slot && order.trial === null) return order;
        if (order.bad === slot) throw new Problem('E_BOOT', `slot ${slot} is bad: not committed`);
        return { ...withoutTrial(order), default: slot };
      }),

    setDefault: (slot, bad) =>
      change(slot, (order) => {
        const after = { ...withoutTrial(order), default: slot, bad: bad ?? notItself(order, slot) };
        return isSame(order, after) ? order : after;
      }),

    prune: () => Promise.resolve(),
  };
}

function within(tries: number): number {
  if (tries >= 1 && tries <= TRIES_MAX) return tries;
  throw new Problem('E_BOOT', `${tries} tries: GRUB counts 1 to ${TRIES_MAX}`);
}

function withoutTrial(order: Order): Order {
  return { ...order, trial: null, tries: 0, arm: 0 };
}

function notItself(order: Order, slot: PartitionSlot): PartitionSlot | null {
  return order.bad === slot ? null : order.bad;
}

function isSame(a: Order, b: Order): boolean {
  return a.default === b.default && a.trial === b.trial && a.bad === b.bad;
}
