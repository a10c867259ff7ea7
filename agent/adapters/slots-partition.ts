/**
 * Slots of a partition host: two root partitions, of which one runs. Order of steps: P1-P4 of docs/specs/agent-machine.md;
 * files: docs/specs/slot-layout.md, section 7. Which one is live, the mounted root decides; a record adds what is in it.
 */
import { bytesText } from '#/agent/core/words.ts';
import type { Ticket } from '#/agent/core/ticket.ts';
import type { FilePort, Offer, SlotRecord, Slots, SlotStatus } from '#/agent/ports.ts';
import {
  imagePayload,
  partitionLayout,
  requirePartitionSlot,
} from '#/agent/install/partition-layout.ts';
import { readKeptManifest } from '#/agent/install/slot-manifest.ts';
import { isProblem, Problem } from '#/protocol/errors.ts';
import { type VersionId, versionIdOf } from '#/protocol/ids.ts';
import { type BootBackend, otherSlot, type PartitionSlot, partitionSlots } from './boot/backend.ts';
import { makeDirectory, removeFile, removeTemporaries } from './durable.ts';
import { slotRecords } from './slot-records.ts';
import type { SlotDisk } from './slots-disk.ts';
import type { Space } from './slots-directory.ts';

export interface PartitionSlotsOptions {
  readonly disk: SlotDisk;
  readonly backend: Pick<BootBackend, 'observe' | 'markBad' | 'setDefault' | 'selfTest' | 'prune'>;
  readonly files: FilePort;
  /** State directory of the agent, outside of both slots. */
  readonly stateDirectory: string;
  /** The ticket of the trial that is under way. */
  readonly ticket: () => Promise<Ticket | 'damaged' | null>;
  /** Of the file system of the state directory, where manifest and index are kept. */
  readonly space: (path: string) => Promise<Space>;
  /** Kept free there at all times. */
  readonly reserveBytes: number;
}

/** The slots `a` and `b`. */
export function createPartitionSlots(options: PartitionSlotsOptions): Slots {
  return new PartitionSlots(options);
}

class PartitionSlots implements Slots {
  readonly kind = 'partition';
  readonly #options: PartitionSlotsOptions;
  readonly #files: FilePort;
  readonly #layout: ReturnType<typeof partitionLayout>;
  readonly #records: ReturnType<typeof slotRecords>;

  constructor(options: PartitionSlotsOptions) {
    this.#options = options;
    this.#files = options.files;
    this.#layout = partitionLayout(options.stateDirectory);
    this.#records = slotRecords(options.files, options.stateDirectory);
  }

  /** The slot that runs it already, else the one that does not run; where neither runs, not the default. */
  async targetFor(artifactId: VersionId): Promise<PartitionSlot> {
    const live = await this.#options.disk.live();
    const base = live ?? (await this.#options.backend.observe()).default ?? 'b';
    const isThere = (await this.#records.read(base))?.artifactId === artifactId;
    return isThere && live !== null ? base : otherSlot(base);
  }

  async observe(): Promise<{
    live: string | null;
    liveArtifact: VersionId | null;
    slots: readonly SlotRecord[];
  }> {
    const live = await this.#options.disk.live();
    const slots: SlotRecord[] = [];
    for (const slot of partitionSlots) slots.push(await this.#reconcile(slot, slot === live));
    const record = slots.find(({ slot }) => slot === live);
    return { live, liveArtifact: record?.artifactId ?? null, slots };
  }

  async preflight(offer: Offer, slot: string): Promise<void> {
    const { disk, backend, space, reserveBytes, stateDirectory } = this.#options;
    const target = await this.#requireTarget(offer, slot);
    const unfit = await backend.selfTest();
    if (unfit.length > 0) {
      throw new Problem('E_BOOT', `the boot loader cannot be used: ${unfit.join('; ')}`, { slot });
    }
    const device = await disk.device(target);
    const { sizeBytes } = imagePayload(offer.manifest);
    if (sizeBytes > device.sizeBytes) {
      const missingBytes = sizeBytes - device.sizeBytes;
      throw new Problem(
        'E_SPACE',
        `the image of ${bytesText(sizeBytes)} does not fit into slot ${slot}, ${device.path} of ${bytesText(device.sizeBytes)}`,
        { path: device.path, missingBytes, needBytes: sizeBytes, sizeBytes: device.sizeBytes },
      );
    }
    const needBytes = offer.manifest.index.sizeBytes + reserveBytes;
    const { freeBytes } = await space(stateDirectory);
    if (freeBytes >= needBytes) return;
    const missingBytes = needBytes - freeBytes;
    throw new Problem(
      'E_SPACE',
      `${bytesText(missingBytes)} are missing on ${stateDirectory}: ${bytesText(needBytes)} needed, ${bytesText(reserveBytes)} of it a reserve, ${bytesText(freeBytes)} free`,
      { path: stateDirectory, missingBytes, needBytes, freeBytes },
    );
  }

  /** P1. What runs becomes the default first where it is not: the way back must not lead into what is written. */
  async begin(offer: Offer, slot: string): Promise<void> {
    const { backend, disk } = this.#options;
    const target = await this.#requireTarget(offer, slot);
    await disk.pin();
    const { manifest } = offer;
    const artifactId = versionIdOf(offer.artifactId, offer.configId);
    const { version, release } = manifest;
    const record = { slot, status: 'writing' as const, artifactId, version, release, reason: null };
    await this.#records.write(record);
    const other = otherSlot(target);
    if ((await backend.observe()).default === other) await backend.markBad(target);
    else await backend.setDefault(other, target);
    await makeDirectory(this.#files, this.#layout.meta(slot));
  }

  /** A bad slot is bad for the loader too: what it counted down must not be tried again (P10). */
  async mark(slot: string, status: SlotStatus, reason: string | null): Promise<void> {
    const target = requirePartitionSlot(slot);
    const known = await this.#reconcile(target, false);
    await this.#records.write({ ...known, status, reason });
    if (status === 'bad') await this.#markBad(target);
  }

  async #markBad(slot: PartitionSlot): Promise<void> {
    const { backend } = this.#options;
    if ((await backend.observe()).default !== slot) await backend.markBad(slot);
  }

  async discard(slot: string): Promise<void> {
    const target = requirePartitionSlot(slot);
    await this.#requireIdle(target);
    await this.#markBad(target);
    await this.#records.write(emptyRecord(target, null));
    await this.#removeMeta(target);
  }

  /** Two partitions are always there: only what is left of their boot files goes. */
  async prune(): Promise<void> {
    for (const slot of partitionSlots)
      await removeTemporaries(this.#files, this.#layout.meta(slot));
    await this.#options.backend.prune();
  }

  async #requireTarget(offer: Offer, slot: string): Promise<PartitionSlot> {
    const target = requirePartitionSlot(slot);
    imagePayload(offer.manifest);
    await this.#requireIdle(target);
    const device = await this.#options.disk.device(target);
    if (device.readOnly) {
      throw new Problem('E_READ_ONLY', `slot ${slot}: ${device.path} is read-only`, {
        path: device.path,
      });
    }
    return target;
  }

  /** F26, I2: not live, not the way back of a trial, and used by nothing. */
  async #requireIdle(slot: PartitionSlot): Promise<void> {
    const { disk, ticket } = this.#options;
    if ((await disk.live()) === slot) {
      throw new Problem('E_NOT_ALLOWED_NOW', `slot ${slot} is live and is never written`);
    }
    const open = await ticket();
    if (open !== null && open !== 'damaged' && open.rollbackSlot === slot) {
      const why = `it is the way back of the trial of ${open.version}`;
      throw new Problem('E_NOT_ALLOWED_NOW', `slot ${slot} is never written: ${why}`);
    }
    const [use] = await disk.usesOf(slot);
    if (use === undefined) return;
    throw new Problem('E_NOT_ALLOWED_NOW', `the partition of slot ${slot} ${use}`, { slot });
  }

  /** Reality wins: what runs is there, what has no partition is not. */
  async #reconcile(slot: PartitionSlot, isLive: boolean): Promise<SlotRecord> {
    const record = (await this.#records.read(slot)) ?? (await this.#unrecorded(slot, isLive));
    if (record.status === 'empty' || isLive) return record;
    try {
      await this.#options.disk.device(slot);
      return record;
    } catch (error) {
      if (!isProblem(error, 'E_DISK')) throw error;
      return emptyRecord(slot, error.message);
    }
  }

  /** The first version of a host, or a state that was lost: the kept manifest tells what it is. Only what runs is good. */
  async #unrecorded(slot: PartitionSlot, isLive: boolean): Promise<SlotRecord> {
    const kept = await readKeptManifest(this.#files, this.#layout, slot);
    const status = isLive ? 'good' : kept === null ? 'empty' : 'written';
    if (kept === null) return { ...emptyRecord(slot, null), status };
    const { version, release } = kept.manifest;
    return { slot, status, artifactId: kept.artifactId, version, release, reason: null };
  }

  async #removeMeta(slot: PartitionSlot): Promise<void> {
    const { meta, manifestFile, indexFile } = this.#layout;
    if ((await this.#files.stat(meta(slot))) === null) return;
    await removeFile(this.#files, manifestFile(slot));
    await removeFile(this.#files, indexFile(slot));
  }
}

function emptyRecord(slot: PartitionSlot, reason: string | null): SlotRecord {
  return { slot, status: 'empty', artifactId: null, version: null, release: null, reason };
}
