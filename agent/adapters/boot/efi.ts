/**
 * EFI BootNext with two slots, without a boot loader: each slot is a unified image, started by an entry of the firmware.
 * docs/specs/partitions.md, section 4.
 */
import type { FilePort } from '#/agent/ports.ts';
import { Problem } from '#/protocol/errors.ts';
import type { BootBackend, PartitionSlot } from './backend.ts';
import { firmwareEntries } from './efi-entries.ts';
import { espImages } from './efi-images.ts';
import type { EfiVariables, EspLocation } from './efi-variables.ts';
import { efiSurvives } from './survives.ts';

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

/** The backend of a host whose firmware starts the slots itself. */
export function efiBackend(options: EfiOptions): BootBackend {
  const { look, observe, forget, entryFor, putFirst, putNext, clearNext } = firmwareEntries(
    options.variables,
    options.espLocation,
  );
  const images = espImages(options.files, options.esp, options.partUuid);

  const refuseDefault = async (slot: PartitionSlot, what: string): Promise<void> => {
    if ((await observe()).default !== slot) return;
    throw new Problem('E_BOOT', `slot ${slot} is the default and cannot be ${what}`);
  };
  /** The slot is first in BootOrder, nothing is on trial; then the image that a firmware without variables starts is its own. */
  const promote = async (slot: PartitionSlot): Promise<void> => {
    const { number, path } = await entryFor(slot, await images.imageOf(slot));
    await putFirst(number);
    const shown = await observe();
    if (shown.default !== slot || shown.trial !== null || shown.problems.length > 0) {
      throw new Problem('E_BOOT', `the firmware does not show slot ${slot} as default`);
    }
    await images.replaceFallback(path);
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
      await images.install(slot, given, given.source.image);
    },
    async arm(slot, tries) {
      if (tries !== 1) throw new Problem('E_BOOT', `${tries} tries: BootNext is one`);
      await refuseDefault(slot, 'on trial');
      const { trial } = await look();
      if (trial?.slot === slot) return;
      if (!(await isProven())) {
        throw new Problem('E_BOOT', 'variables of the firmware are not proven to outlive a reboot');
      }
      const { number } = await entryFor(slot, await images.imageOf(slot));
      await putNext(number);
      if ((await observe()).trial?.slot !== slot) {
        throw new Problem('E_BOOT', `the firmware does not show slot ${slot} as next`);
      }
    },
    async disarm(slot) {
      if ((await look()).trial?.slot !== slot) return;
      await clearNext();
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
      if (first !== null) await images.replaceFallback(first.path);
    },
  };
}
