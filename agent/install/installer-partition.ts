/**
 * The Installer of partition hosts: the image of an offer goes straight into the block device of its slot, is read back past
 * the page cache, and then its boot files are put where the boot loader reads them (P2-P5). The heavy part runs in a child
 * process (child.ts), which holds one exclusive descriptor of the device from the first byte to the last fsync.
 */
import type { BlockDevice } from '#/agent/adapters/block-devices.ts';
import { nodeFiles } from '#/agent/adapters/file-port.ts';
import type { SlotDisk } from '#/agent/adapters/slots-disk.ts';
import type { PartitionSlot } from '#/agent/adapters/boot/backend.ts';
import type { DownloadResult, Installer, Offer, Progress, Slots } from '#/agent/ports.ts';
import { Problem } from '#/protocol/errors.ts';
import type { ChildClient } from './child-client.ts';
import { type ClientOptions, createClient } from './clients.ts';
import { deviceTargets, partitionLayout, requirePartitionSlot } from './partition-layout.ts';
import { mayRewrite } from './rewrites.ts';
import type { InstallSettings } from './settings.ts';
import { readKeptManifest, readManifestBytes, readSlotIndex } from './slot-manifest.ts';
import type { KeptVersion, ReadBackOutcome } from './task.ts';

export interface PartitionInstallerOptions extends ClientOptions {
  /** Manifests and indexes are kept below it. */
  readonly stateDirectory: string;
  readonly disk: SlotDisk;
  /** Marks `written` and `verified`. */
  readonly slots: Slots;
  readonly settings: InstallSettings;
  /** P5. The slot was read back; its partition is used by nobody. */
  readonly installBootFiles: (slot: PartitionSlot, offer: Offer) => Promise<void>;
  /** Forgets what the page cache holds of a device; false when that cannot be done. */
  readonly dropCache: (device: BlockDevice) => Promise<boolean>;
  /** Hears how each read-back went: whether it could pass the page cache by, and what differed. */
  readonly onReadBack?: (slot: string, outcome: ReadBackOutcome) => void;
}

/**
 * Problems of download: those of the sources, E_ARTIFACT, E_CHUNK, E_DISK, E_IO (also: the device is in use), E_INTERRUPTED. Of
 * verify: E_SLOT, E_BOOT, E_SPACE (no room for boot files), E_IO, E_INTERRUPTED, and, when it has to write anew, those of download.
 */
export function createPartitionInstaller(options: PartitionInstallerOptions): Installer {
  return new PartitionInstaller(options);
}

class PartitionInstaller implements Installer {
  readonly #options: PartitionInstallerOptions;
  readonly #layout: ReturnType<typeof partitionLayout>;
  readonly #client: ChildClient;
  readonly #files = nodeFiles();

  constructor(options: PartitionInstallerOptions) {
    this.#options = options;
    this.#layout = partitionLayout(options.stateDirectory);
    this.#client = createClient(options);
  }

  async download(
    offer: Offer,
    slot: string,
    onProgress: (progress: Progress) => void,
    signal: AbortSignal,
  ): Promise<DownloadResult> {
    const target = requirePartitionSlot(slot);
    const result = await this.#write(offer, target, true, onProgress, signal);
    await this.#options.slots.mark(slot, 'written', null);
    return result;
  }

  async verify(
    offer: Offer,
    slot: string,
    onProgress: (progress: Progress) => void,
    signal: AbortSignal,
  ): Promise<void> {
    const target = requirePartitionSlot(slot);
    for (let rewrites = 0; ; rewrites += 1) {
      const outcome = await this.#compare(offer, target, onProgress, signal);
      this.#options.onReadBack?.(slot, outcome);
      if (outcome.differences.length === 0) break;
      // The page cache may hold the right bytes of sectors that are bad: whoever writes next must not resume from it.
      const device = await this.#options.disk.device(target);
      const keeps = await this.#options.dropCache(device);
      await this.#refuse(target, outcome, !mayRewrite(offer, rewrites));
      await this.#write(offer, target, keeps, onProgress, signal);
    }
    await this.#options.installBootFiles(target, offer);
    await this.#options.slots.mark(slot, 'verified', null);
  }

  async #write(
    offer: Offer,
    slot: PartitionSlot,
    resumesDevice: boolean,
    onProgress: (progress: Progress) => void,
    signal: AbortSignal,
  ): Promise<DownloadResult> {
    const { path, number } = await this.#options.disk.device(slot);
    const outcome = await this.#client.download(
      {
        artifactId: offer.artifactId,
        manifestBytes: offer.manifestBytes,
        sources: offer.sources,
        targets: deviceTargets(path, number),
        staging: null,
        resumesDevice,
        meta: this.#layout.meta(slot),
        seed: await this.#seed(slot),
        settings: this.#options.settings,
      },
      (progress) => onProgress({ phase: 'download', ...progress }),
      signal,
    );
    const { resumedBytes, ...result } = outcome;
    return { ...result, reusedBytes: result.reusedBytes + resumedBytes };
  }

  async #compare(
    offer: Offer,
    slot: PartitionSlot,
    onProgress: (progress: Progress) => void,
    signal: AbortSignal,
  ): Promise<ReadBackOutcome> {
    const { artifactId, manifestBytes, manifest } = offer;
    const rawIndex = await readSlotIndex(this.#files, this.#layout, slot, manifest);
    if (rawIndex === null) {
      const differences = [`${this.#layout.indexFile(slot)} is missing or damaged`];
      return { differences, damagedFiles: [], direct: true, durationMs: 0 };
    }
    const { path, number } = await this.#options.disk.device(slot);
    return await this.#client.readBack(
      {
        artifactId,
        manifestBytes,
        rawIndex,
        targets: deviceTargets(path, number),
        directory: null,
        workers: this.#options.settings.workers,
      },
      (progress) => onProgress({ phase: 'verify', ...progress }),
      signal,
    );
  }

  async #refuse(slot: PartitionSlot, outcome: ReadBackOutcome, isLast: boolean): Promise<void> {
    if (!isLast) {
      await this.#options.slots.mark(slot, 'writing', null);
      return;
    }
    const problem = new Problem(
      'E_SLOT',
      `slot ${slot} is not what was written: ${outcome.differences.join('; ')}`,
      { differences: outcome.differences.length, direct: outcome.direct },
    );
    await this.#options.slots.mark(slot, 'bad', problem.message);
    throw problem;
  }

  /** The live slot with its kept index, when it can serve as a seed: its partition is read, not the mounted file system. */
  async #seed(slot: PartitionSlot): Promise<KeptVersion | null> {
    const live = await this.#options.disk.live();
    if (live === null || live === slot) return null;
    const kept = await readKeptManifest(this.#files, this.#layout, live);
    if (kept === null || kept.manifest.payloads.some(({ kind }) => kind !== 'image')) return null;
    const { artifactId, manifest } = kept;
    const manifestBytes = await readManifestBytes(this.#files, this.#layout, live, artifactId);
    const rawIndex = await readSlotIndex(this.#files, this.#layout, live, manifest);
    if (manifestBytes === null || rawIndex === null) return null;
    const { path, number } = await this.#options.disk.device(live);
    return { artifactId, manifestBytes, rawIndex, targets: deviceTargets(path, number) };
  }
}
