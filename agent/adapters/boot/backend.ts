/**
 * What a boot loader must be able to do so that two partition slots can be switched safely. One backend for each loader;
 * the adapter that is the agent's BootControl sits on top. Disk formats and orders of writes: docs/specs/partitions.md.
 *
 * Every method is idempotent, durable on return, and has read its own work back. One that threw may have happened or
 * not; the loader then boots by the record before or the one after, never by a mixture. Failures are Problems: E_BOOT
 * (the loader's record is damaged, or does not show what was written), E_IO, E_SPACE, E_READ_ONLY.
 */
import type { ArtifactId } from '#/protocol/ids.ts';

export const partitionSlots = ['a', 'b'] as const;
export type PartitionSlot = (typeof partitionSlots)[number];

/** The other one. */
export function otherSlot(slot: PartitionSlot): PartitionSlot {
  return slot === 'a' ? 'b' : 'a';
}

export const backendKinds = ['grub', 'systemd-boot', 'efi', 'uboot', 'custom'] as const;
export type BackendKind = (typeof backendKinds)[number];

/** Most tries that a trial can be given; GRUB's configuration counts them out one by one. */
export const TRIES_MAX = 3;

/** What the loader will do next, read from its own record. */
export interface BootRecord {
  /** What is booted when nothing is on trial. Null: the record cannot be read, the loader then chooses by itself. */
  readonly default: PartitionSlot | null;
  /** What is tried before the default. `triesLeft` 0: used up, the default is booted. */
  readonly trial: { readonly slot: PartitionSlot; readonly triesLeft: number } | null;
  /** Never chosen, whatever else stands in the record. */
  readonly bad: readonly PartitionSlot[];
  /** What was found damaged and could be passed over, for people; for example one copy of two. */
  readonly problems: readonly string[];
}

/** What a slot needs outside of its root, so that the loader can start it. */
export interface BootFiles {
  readonly artifactId: ArtifactId;
  /** For people, in the loader's menu. */
  readonly version: string;
  /** Absolute paths of files to copy, in the slot's root, mounted read-only; what the loader reads there itself is not copied. */
  readonly source:
    | { readonly kind: 'linux'; readonly kernel: string; readonly initrd: string | null }
    | { readonly kind: 'uki'; readonly image: string };
  /**
   * Kernel arguments of this version, without `root=`, which the backend adds. Characters: letters, digits, space and
   * `_ . , : = / @ % + -` (E_BOOT otherwise).
   */
  readonly kernelArguments: string;
}

/** One promise about what may happen to a host, for doctor and the docs. */
export interface Survival {
  /** For example `power cut while the decision is written`. */
  readonly event: string;
  readonly holds: boolean;
  /** How, or why not. One sentence. */
  readonly how: string;
}

export interface BootBackend {
  readonly kind: BackendKind;
  /** What doctor and the docs print. */
  readonly survives: readonly Survival[];
  /** Most tries of one trial: 1 where the loader has no counter. */
  readonly triesMax: number;
  /**
   * False where the loader's record looks the same after a trial that failed and after one that the firmware ignored
   * (EFI BootNext): a host that came back on the old slot then says nothing about the version (F34).
   */
  readonly tellsAttempt: boolean;
  /** Preflight: what makes this backend unfit here, for people; empty when it can be used. Writes nothing that decides. */
  selfTest(): Promise<readonly string[]>;
  observe(): Promise<BootRecord>;
  /** P1: `slot` can no longer be chosen. Never the default: E_BOOT. */
  markBad(slot: PartitionSlot): Promise<void>;
  /** P5: all that the loader needs for `slot` lies where it reads it, under new names. Nothing chooses it yet. */
  installBootFiles(slot: PartitionSlot, files: BootFiles): Promise<void>;
  /**
   * P7: `slot` is tried at most `tries` times, the default stays; `slot` is no longer bad. Repeated for a slot that is armed
   * already it changes nothing: a counter is never refilled (I10). E_BOOT when `slot` is the default.
   */
  arm(slot: PartitionSlot, tries: number): Promise<void>;
  /** `slot` is no longer on trial. A no-op when it is not. */
  disarm(slot: PartitionSlot): Promise<void>;
  /** P12: `slot`, which is on trial or default, is the default for ever; nothing is on trial. */
  commit(slot: PartitionSlot): Promise<void>;
  /** P14: `slot` is the default, nothing is on trial, `bad` (if any) cannot be chosen. */
  setDefault(slot: PartitionSlot, bad: PartitionSlot | null): Promise<void>;
  /** Removes boot files that belong to no slot any more. Never those of the default or of a slot on trial. */
  prune(): Promise<void>;
}
