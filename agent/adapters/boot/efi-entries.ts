/** Our entries among those of the firmware: which slot each starts, which comes first, which is next. */
import { type BootRecord, type PartitionSlot, partitionSlots } from './backend.ts';
import { decodeEntry, type EfiVariables, encodeEntry, type EspLocation } from './efi-variables.ts';

export interface Entry {
  readonly number: number;
  readonly slot: PartitionSlot;
  /** From the root of the ESP. */
  readonly path: string;
}

export interface FirmwareLook {
  readonly all: readonly Entry[];
  readonly order: readonly number[];
  /** The first of ours in BootOrder. */
  readonly first: Entry | null;
  /** What BootNext names, if it is ours. */
  readonly trial: Entry | null;
}

export interface FirmwareEntries {
  look(): Promise<FirmwareLook>;
  observe(): Promise<BootRecord>;
  /** The slot has no entry any more, and is not next. */
  forget(slot: PartitionSlot): Promise<void>;
  /** The entry of the slot for this file; made when there is none. */
  entryFor(slot: PartitionSlot, path: string): Promise<Entry>;
  /** `number` comes first; then nothing of ours is next. */
  putFirst(number: number): Promise<void>;
  putNext(number: number): Promise<void>;
  clearNext(): Promise<void>;
}

/** Reads and writes by `variables`, each write whole. */
export function firmwareEntries(
  variables: EfiVariables,
  espLocation: () => Promise<EspLocation>,
): FirmwareEntries {
  const entries = async (): Promise<readonly Entry[]> => {
    const found: Entry[] = [];
    for (const name of await variables.names()) {
      const number = /^Boot([0-9A-F]{4})$/.exec(name)?.[1];
      const value = number === undefined ? null : await variables.read(name);
      const entry = value === null ? null : decodeEntry(value);
      const slot = partitionSlots.find((one) => entry?.description === `switchback-${one}`);
      if (number !== undefined && slot !== undefined && entry?.path != null)
        found.push({
          number: Number.parseInt(number, 16),
          slot,
          path: entry.path.replaceAll('\\', '/'),
        });
    }
    return found;
  };
  const numbers = async (name: 'BootOrder' | 'BootNext'): Promise<readonly number[]> => {
    const value = Buffer.from((await variables.read(name)) ?? []);
    return Array.from({ length: value.byteLength >> 1 }, (_, index) =>
      value.readUInt16LE(index * 2),
    );
  };
  const setOrder = async (order: readonly number[]): Promise<void> => {
    const value = Buffer.alloc(order.length * 2);
    for (const [index, number] of order.entries()) value.writeUInt16LE(number, index * 2);
    await variables.write('BootOrder', value);
  };
  const nameOf = (number: number): string =>
    `Boot${number.toString(16).toUpperCase().padStart(4, '0')}`;

  const look = async (): Promise<FirmwareLook> => {
    const all = await entries();
    const order = await numbers('BootOrder');
    const [next] = await numbers('BootNext');
    const first = order.flatMap((number) => all.filter((one) => one.number === number))[0];
    const trial = all.find(({ number }) => number === next);
    return { all, order, first: first ?? null, trial: trial ?? null };
  };
  const observe = async (): Promise<BootRecord> => {
    const { all, order, first, trial } = await look();
    const isFirst = first === null || order[0] === first.number;
    return {
      default: first?.slot ?? null,
      trial:
        trial === null || trial.slot === first?.slot ? null : { slot: trial.slot, triesLeft: 1 },
      bad: partitionSlots.filter((slot) => all.every((one) => one.slot !== slot)),
      problems: [
        ...(first === null ? ['BootOrder has no entry of ours'] : []),
        ...(isFirst ? [] : [`${nameOf(order[0] ?? 0)} comes before ours in BootOrder`]),
      ],
    };
  };

  return {
    look,
    observe,
    async forget(slot) {
      const { trial, order, all } = await look();
      const gone = all.flatMap((one) => (one.slot === slot ? [one.number] : []));
      if (trial?.slot === slot) await variables.remove('BootNext');
      if (order.some((one) => gone.includes(one)))
        await setOrder(order.filter((one) => !gone.includes(one)));
      for (const number of gone) await variables.remove(nameOf(number));
    },
    async entryFor(slot, path) {
      const { all } = await look();
      const there = all.find((one) => one.slot === slot && one.path === path);
      if (there !== undefined) return there;
      const taken = new Set(await variables.names());
      let number = 0;
      while (taken.has(nameOf(number))) number += 1;
      const value = encodeEntry(
        `switchback-${slot}`,
        await espLocation(),
        path.replaceAll('/', '\\'),
      );
      await variables.write(nameOf(number), value);
      return { number, slot, path };
    },
    async putFirst(number) {
      // First what is for ever: a cut in between boots the new default, by BootNext or not.
      const { order, trial } = await look();
      if (order[0] !== number) await setOrder([number, ...order.filter((one) => one !== number)]);
      if (trial !== null) await variables.remove('BootNext');
    },
    async putNext(number) {
      const value = Buffer.alloc(2);
      value.writeUInt16LE(number);
      await variables.write('BootNext', value);
    },
    clearNext: () => variables.remove('BootNext'),
  };
}
