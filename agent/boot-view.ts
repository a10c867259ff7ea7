/** Partitions and boot loader as the operator of a host sees them. Pure. */
import type { PartitionSlot } from './adapters/boot/backend.ts';

/** What the operator of a host sees of its partitions and its boot loader. */
export interface BootView {
  readonly loader: string;
  /** Booted when nothing is on trial; null: the loader's record cannot be read. */
  readonly default: PartitionSlot | null;
  /** Booted next, before the default. */
  readonly trial: { readonly slot: PartitionSlot; readonly triesLeft: number } | null;
  readonly bad: readonly PartitionSlot[];
  /** What is wrong with the record of the loader, or with a partition. */
  readonly problems: readonly string[];
  readonly slots: readonly {
    readonly slot: PartitionSlot;
    readonly running: boolean;
    readonly partUuid: string | null;
    readonly device: string | null;
    readonly sizeBytes: number | null;
  }[];
}

/** What the next boots bring, in a sentence. */
export function nextBootText({ trial, default: base }: BootView): string {
  const rest = base === null ? 'nobody knows what' : `slot ${base}`;
  if (trial === null) return `the next boot starts ${rest}`;
  if (trial.triesLeft === 0) {
    return `the tries of slot ${trial.slot} are used up: the next boot starts ${rest}`;
  }
  const tries = trial.triesLeft === 1 ? 'one try' : `${trial.triesLeft} tries`;
  return `the next boot tries slot ${trial.slot} (${tries} left), then ${rest}`;
}
