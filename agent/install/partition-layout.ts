/**
 * Where a partition host keeps what it knows of its two slots. Pure: names and paths only. Written down in
 * docs/specs/slot-layout.md, section 7.
 *
 *     <state>/slots/a.json, b.json              the slot records
 *     <state>/slots/a.meta/manifest.json        the manifest of what was last written there
 *     <state>/slots/a.meta/chunks.index         its chunk index: what the next delta starts from
 *     <state>/slots-disk.json                   the partitions that this host writes to
 */
import { join } from 'node:path';
import type { PartitionSlot } from '#/agent/adapters/boot/backend.ts';
import type { Manifest } from '#/bundle/manifest.ts';
import { Problem } from '#/protocol/errors.ts';
import type { MetaLayout } from './slot-manifest.ts';
import type { PayloadTarget } from './write-plan.ts';

/** True for names that may stand as a slot of a partition host. */
export function isPartitionSlot(slot: string | null): slot is PartitionSlot {
  return slot === 'a' || slot === 'b';
}

/** The slot that a name stands for. @throws Problem E_USAGE for any other text. */
export function requirePartitionSlot(slot: string): PartitionSlot {
  if (isPartitionSlot(slot)) return slot;
  const shown = JSON.stringify(slot.slice(0, 100));
  throw new Problem('E_USAGE', `${shown} is not the name of a slot: a or b`);
}

export interface PartitionLayout extends MetaLayout {
  readonly records: string;
  /** Manifest and index of what is in a slot. */
  meta(slot: string): string;
  readonly diskFile: string;
}

/** Paths below the state directory, which is absolute. */
export function partitionLayout(stateDirectory: string): PartitionLayout {
  const records = join(stateDirectory, 'slots');
  const meta = (slot: string): string => join(records, `${slot}.meta`);
  return {
    records,
    meta,
    manifestFile: (slot) => join(meta(slot), 'manifest.json'),
    indexFile: (slot) => join(meta(slot), 'chunks.index'),
    diskFile: join(stateDirectory, 'slots-disk.json'),
  };
}

/** The one image of a version for partitions. @throws Problem E_CLASS: the bundle holds anything else. */
export function imagePayload(
  manifest: Manifest,
): Extract<Manifest['payloads'][number], { readonly kind: 'image' }> {
  const [payload] = manifest.payloads;
  if (manifest.payloads.length === 1 && payload?.kind === 'image') return payload;
  const found = manifest.payloads.map(({ kind, name }) => `${kind} ${name}`).join(', ');
  throw new Problem(
    'E_CLASS',
    `this host takes one image of a root partition, the artifact has ${found}`,
  );
}

/** The image goes to `path`, the block device `deviceNumber` (`major:minor`). */
export function deviceTargets(path: string, deviceNumber: string): PayloadTarget[] {
  return [{ kind: 'device', path, deviceNumber }];
}
