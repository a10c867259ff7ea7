/**
 * EFI BootNext with two slots, without a boot loader: each slot is a unified image, started by an entry of the firmware.
 * docs/specs/partitions.md, section 4.
 */
import type { FilePort } from '#/agent/ports.ts';
import { syncDirectory } from '#/agent/adapters/durable.ts';
import { Problem } from '#/protocol/errors.ts';
import { type BootBackend, type PartitionSlot, partitionSlots } from './backend.ts';
import { decodeEntry, type EfiVariables, encodeEntry, type EspLocation } from './efi-variables.ts';
import { createOnEsp, directoryOnEsp, namesIn, removeIfThere } from './esp-files.ts';
import { efiSurvives } from './survives.ts';

const IMAGES_PATH = '/EFI/switchback';
const FALLBACK_PATH = '/EFI/BOOT/BOOTX64.EFI';
const IMAGE_MAX_BYTES = 512 * 1024 * 1024;
/** In the image's command line, in the place of the PARTUUID of its slot. */
export const PARTUUID_PLACE = '00000000-0000-0000-0000-000000000000';

export interface EfiOptions {
  readonly files: FilePort;
  readonly esp: string;
  readonly variables: EfiVariables;
  readonly espLocation: () => Promise<EspLocation>;
  readonly partUuid: (slot: PartitionSlot) => Promise<string>;
  /** The boot in which our entry for the default was seen first, kept on the data partition: a later boot proves that variables last. */
  readonly seen: { read(): Promise<string | null>; write(bootId: string): Promise<void> };
  readonly bootId: () => string;
}

interface Entry {
  readonly number: number;
  readonly slot: PartitionSlot;
  /** From the root of the ESP. */
  readonly path: string;
}

/** The backend of a host whose firmware starts the slots itself. */
export function efiBackend(options: EfiOptions): BootBackend {
  const { files, esp, variables } = options;

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

  const look = async () => {
    const all = await entries();
    const order = await numbers('BootOrder');
    const [next] = await numbers('BootNext');
    const bySlot = (slot: PartitionSlot): readonly Entry[] =>
      all.filter((one) => one.slot === slot);
    const first = order.flatMap((number) => all.filter((one) => one.number === number))[0];
    const trial = all.find(({ number }) => number === next);
    return { all, order, first: first ?? null, trial: trial ?? null, bySlot };
  };
  const observe = async () => {
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
  const refuseDefault = async (slot: PartitionSlot, what: string): Promise<void> => {
    if ((await observe()).default !== slot) return;
    throw new Problem('E_BOOT', `slot ${slot} is the default and cannot be ${what}`);
  };
  const forget = async (slot: PartitionSlot): Promise<void> => {
    const { trial, order, bySlot } = await look();
    const gone = bySlot(slot).map(({ number }) => number);
    if (trial?.slot === slot) await variables.remove('BootNext');
    if (order.some((one) => gone.includes(one)))
      await setOrder(order.filter((one) => !gone.includes(one)));
    for (const number of gone) await variables.remove(nameOf(number));
  };
  const imageOf = async (slot: PartitionSlot): Promise<string> => {
    const names = (await namesIn(files, esp + IMAGES_PATH)).filter((name) =>
      new RegExp(`^${slot}-[0-9a-f]{12}\\.efi$`).test(name),
    );
    const [name] = names;
    if (name !== undefined && names.length === 1) return `${IMAGES_PATH}/${name}`;
    throw new Problem('E_BOOT', `slot ${slot} has ${names.length} images on the ESP`);
  };
  /** The entry of the slot, made when there is none. */
  const entryFor = async (slot: PartitionSlot): Promise<Entry> => {
    const path = await imageOf(slot);
    const { bySlot } = await look();
    const there = bySlot(slot).find((one) => one.path === path);
    if (there !== undefined) return there;
    const taken = new Set(await variables.names());
    let number = 0;
    while (taken.has(nameOf(number))) number += 1;
    const value = encodeEntry(
      `switchback-${slot}`,
      await options.espLocation(),
      path.replaceAll('/', '\\'),
    );
    await variables.write(nameOf(number), value);
    return { number, slot, path };
  };
  /** The slot is first in BootOrder, nothing is on trial; then the image that a firmware without variables starts is its own. */
  const promote = async (slot: PartitionSlot): Promise<void> => {
    const { number, path } = await entryFor(slot);
    const { order, trial } = await look();
    // First what is for ever: a cut in between boots the new default, by BootNext or not.
    if (order[0] !== number) await setOrder([number, ...order.filter((one) => one !== number)]);
    if (trial !== null) await variables.remove('BootNext');
    const shown = await observe();
    if (shown.default !== slot || shown.trial !== null || shown.problems.length > 0) {
      throw new Problem('E_BOOT', `the firmware does not show slot ${slot} as default`);
    }
    await replaceFallback(path);
  };
  const replaceFallback = async (path: string): Promise<void> => {
    const image = await bytesOf(files, esp + path);
    if ((await bytesOf(files, esp + FALLBACK_PATH).catch(() => null))?.equals(image) === true)
      return;
    // The one file that has to keep its name: BootOrder, which stands already, covers the moment of its change.
    const fresh = `${esp}/EFI/BOOT/switchback.new`;
    await directoryOnEsp(files, `${esp}/EFI/BOOT`);
    await createOnEsp(files, fresh, image);
    await files.rename(fresh, esp + FALLBACK_PATH);
    const file = await files.open(esp + FALLBACK_PATH, 'append');
    await file.sync();
    await file.close();
    await syncDirectory(files, `${esp}/EFI/BOOT`);
  };
  const isProven = async (): Promise<boolean> => {
    const seen = await options.seen.read();
    const { first } = await look();
    if (first === null) return false;
    if (seen === null) await options.seen.write(options.bootId());
    return seen !== null && seen !== options.bootId();
  };

  return {
    kind: 'efi',
    survives: efiSurvives,
    triesMax: 1,
    tellsAttempt: false,

    async selfTest() {
      const { problems } = await observe();
      const unproven = (await isProven())
        ? []
        : ['not proven yet that variables outlive a reboot; after the next one it is'];
      return [...problems, ...unproven];
    },
    observe,
    async markBad(slot) {
      await refuseDefault(slot, 'marked bad');
      await forget(slot);
    },
    async installBootFiles(slot, given) {
      await refuseDefault(slot, 'written to');
      if (given.source.kind !== 'uki') {
        throw new Problem(
          'E_BOOT',
          'the firmware starts a unified image, which this version has none of',
        );
      }
      await forget(slot);
      const directory = esp + IMAGES_PATH;
      await directoryOnEsp(files, `${esp}/EFI`);
      await directoryOnEsp(files, directory);
      for (const name of await namesIn(files, directory))
        if (name.startsWith(`${slot}-`)) await removeIfThere(files, `${directory}/${name}`);
      const image = await bytesOf(files, given.source.image);
      const at = image.indexOf(PARTUUID_PLACE);
      if (at === -1 || image.indexOf(PARTUUID_PLACE, at + 1) !== -1) {
        throw new Problem(
          'E_BOOT',
          `the command line of the image must hold root=PARTUUID=${PARTUUID_PLACE} once`,
        );
      }
      image.write((await options.partUuid(slot)).toLowerCase(), at, 'latin1');
      const path = `${directory}/${slot}-${given.artifactId.slice(0, 12)}.efi`;
      await createOnEsp(files, path, image);
      if (!(await bytesOf(files, path)).equals(image)) {
        throw new Problem('E_BOOT', `${path} does not read back`);
      }
    },
    async arm(slot, tries) {
      if (tries !== 1) throw new Problem('E_BOOT', `${tries} tries: BootNext is one`);
      await refuseDefault(slot, 'on trial');
      const { trial } = await look();
      if (trial?.slot === slot) return;
      if (!(await isProven())) {
        throw new Problem('E_BOOT', 'variables of the firmware are not proven to outlive a reboot');
      }
      const { number } = await entryFor(slot);
      const value = Buffer.alloc(2);
      value.writeUInt16LE(number);
      await variables.write('BootNext', value);
      if ((await observe()).trial?.slot !== slot) {
        throw new Problem('E_BOOT', `the firmware does not show slot ${slot} as next`);
      }
    },
    async disarm(slot) {
      if ((await look()).trial?.slot !== slot) return;
      await variables.remove('BootNext');
      if ((await look()).trial !== null) throw new Problem('E_BOOT', 'BootNext does not go away');
    },
    async commit(slot) {
      await promote(slot);
    },
    async setDefault(slot, bad) {
      await promote(slot);
      if (bad !== null) await forget(bad);
    },
    async prune() {
      const { first } = await look();
      if (first !== null) await replaceFallback(first.path);
    },
  };
}

async function bytesOf(files: FilePort, path: string): Promise<Buffer> {
  const found = await files.stat(path);
  if (found?.kind !== 'file' || found.sizeBytes > IMAGE_MAX_BYTES) {
    throw new Problem('E_BOOT', `${path} is no image of at most ${IMAGE_MAX_BYTES} bytes`);
  }
  const bytes = Buffer.alloc(found.sizeBytes);
  const file = await files.open(path, 'read');
  try {
    for (let at = 0; at < bytes.byteLength; ) {
      const count = await file.read(bytes.subarray(at), at);
      if (count === 0) throw new Problem('E_IO', `read ${path}: ends at byte ${at}`);
      at += count;
    }
  } finally {
    await file.close();
  }
  return bytes;
}
