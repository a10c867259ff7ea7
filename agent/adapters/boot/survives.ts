/**
 * What each backend survives, as doctor and docs/operate/boot-loaders.md print it. A promise that is not measured says so.
 */
import type { BackendKind, Survival } from './backend.ts';

const events = {
  cut: 'power cut while the decision is written',
  files: 'power cut while boot files are written',
  kernel: 'a version whose kernel cannot be loaded',
  panic: 'a version that panics, hangs or never reaches its guard',
  disk: 'the disk is moved to another host or comes up under another name',
  nvram: 'the variables of the firmware are lost',
  full: 'the EFI system partition is full',
  counter: 'tries are counted when nothing of the version runs',
} as const;

function rows(of: Record<keyof typeof events, readonly [boolean, string]>): readonly Survival[] {
  return (Object.keys(events) as (keyof typeof events)[]).map((key) => {
    const [holds, how] = of[key];
    return { event: events[key], holds, how };
  });
}

const NO_NVRAM = 'Nothing of it stands in variables of the firmware.';
const BY_PARTUUID = 'Roots are found by PARTUUID.';
const OLD_ENTRY = 'The way back is written before, under other names, and stays as it is.';

export const grubSurvives = rows({
  cut: [
    true,
    'Two copies on a raw partition, one write each; GRUB and agent take the newer whole.',
  ],
  files: [true, 'There are none: kernel and initrd are in the slot, which is bad until verified.'],
  kernel: [true, 'The try is counted before; GRUB goes on with the default in the same boot.'],
  panic: [true, 'GRUB counted the try before; `panic=` or the watchdog resets; then the default.'],
  disk: [true, BY_PARTUUID],
  nvram: [true, NO_NVRAM],
  full: [true, 'Nothing is created on it: `tries.env` is written in place, by GRUB alone.'],
  counter: [true, 'By GRUB, in a file that only GRUB writes; unless it reads back, no trial.'],
});

export const systemdBootSurvives = rows({
  cut: [
    true,
    'Entries come under new names, in one sector; the good one is never renamed or rewritten.',
  ],
  files: [true, OLD_ENTRY],
  kernel: [true, 'The counter of the entry goes down first; at 0 it stands last.'],
  panic: [true, 'The loader counts by renaming the entry; at 0 the good one is booted.'],
  disk: [true, BY_PARTUUID],
  nvram: [true, 'Entries are files; the loader lies at /EFI/BOOT too.'],
  full: [true, OLD_ENTRY],
  counter: [true, 'By systemd-boot, in the name of the entry.'],
});

export const efiSurvives = rows({
  cut: [true, 'One variable is one decision; the firmware writes it whole or not at all.'],
  files: [
    false,
    'The fallback at /EFI/BOOT is replaced after a commit; a cut then leaves BootOrder alone.',
  ],
  kernel: [true, 'BootNext is one-shot; the firmware goes on with BootOrder.'],
  panic: [true, 'BootNext is gone after one boot; `panic=` or the watchdog resets into BootOrder.'],
  disk: [false, 'Entries of the firmware belong to the machine; /EFI/BOOT starts the default.'],
  nvram: [true, '/EFI/BOOT holds the default slot; the trial counts as not attempted.'],
  full: [true, OLD_ENTRY],
  counter: [
    false,
    'One try, and whether it was made cannot be told from a firmware that ignored it.',
  ],
});

export const ubootSurvives = rows({
  cut: [true, 'Two copies with CRC and counter; one call writes the inactive one.'],
  files: [true, 'There are none: kernel and initrd are in the slot.'],
  kernel: [true, 'By the boot script, if it is the one of the manual.'],
  panic: [true, 'By the boot script, which counts and saves before it boots.'],
  disk: [true, BY_PARTUUID],
  nvram: [true, NO_NVRAM],
  full: [true, 'Nothing is written to it.'],
  counter: [true, 'By the boot script, if it is the one of the manual.'],
});

export const customSurvives = rows({
  cut: [false, 'Up to the program; the agent only reads back what it was told.'],
  files: [false, 'Up to the program.'],
  kernel: [false, 'Up to the boot loader behind it.'],
  panic: [false, 'Up to the boot loader behind it.'],
  disk: [false, 'Up to the boot loader behind it.'],
  nvram: [false, 'Up to the program.'],
  full: [false, 'Up to the program.'],
  counter: [false, 'Up to the boot loader behind it.'],
});

export const survivesOf: Readonly<Record<BackendKind, readonly Survival[]>> = {
  grub: grubSurvives,
  'systemd-boot': systemdBootSurvives,
  efi: efiSurvives,
  uboot: ubootSurvives,
  custom: customSurvives,
};
