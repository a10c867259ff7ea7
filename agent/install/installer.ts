/**
 * The Installer of directory hosts: from the sources of an offer into the staging directory of its slot, and from there,
 * read back and compared, to `releases/<artifactId>` (D2-D5). The heavy part runs in a child process (child.ts).
 */
import { rmSync } from 'node:fs';
import { makeDirectory, syncDirectory } from '#/agent/adapters/durable.ts';
import { nodeFiles } from '#/agent/adapters/file-port.ts';
import { readSlotLink } from '#/agent/adapters/boot-directory.ts';
import type { DownloadResult, Installer, Offer, Progress, Slots } from '#/agent/ports.ts';
import { parseManifest } from '#/bundle/manifest.ts';
import { isProblem, Problem } from '#/protocol/errors.ts';
import { artifactOf } from '#/protocol/ids.ts';
import type { ChildClient } from './child-client.ts';
import { type ClientOptions, createClient } from './clients.ts';
import { directoryLayout, isDirectorySlot } from './layout.ts';
import { mayRewrite } from './rewrites.ts';
import type { InstallSettings } from './settings.ts';
import { readManifestBytes, readSlotIndex } from './slot-manifest.ts';
import { removeTree } from './staging.ts';
import type { KeptVersion, ReadBackOutcome } from './task.ts';
import { directoryTargets } from './write-plan.ts';

const DIFFERENCES_TOLD = 5;

export interface InstallerOptions extends ClientOptions {
  /** Directory that holds releases/, current and previous. */
  readonly root: string;
  /** Marks `written` and `verified`. */
  readonly slots: Slots;
  readonly settings: InstallSettings;
  /** Hears how each read-back went: whether it could pass the page cache by, and what differed. */
  readonly onReadBack?: (slot: string, outcome: ReadBackOutcome) => void;
}

/**
 * `offer.sources` are http, https and file URLs. Problems of download: those of source.ts, E_ARTIFACT, E_CHUNK, E_PATH,
 * E_MODE, E_SIZE, E_SPACE, E_IO, E_INTERRUPTED. Of verify: E_SLOT, E_IO, E_INTERRUPTED, and, when it has to write anew, those
 * of download.
 */
export function createDirectoryInstaller(options: InstallerOptions): Installer {
  return new DirectoryInstaller(options);
}

class DirectoryInstaller implements Installer {
  readonly #options: InstallerOptions;
  readonly #layout: ReturnType<typeof directoryLayout>;
  readonly #client: ChildClient;
  readonly #files = nodeFiles();

  constructor(options: InstallerOptions) {
    this.#options = options;
    this.#layout = directoryLayout(options.root);
    this.#client = createClient(options);
  }

  async download(
    offer: Offer,
    slot: string,
    onProgress: (progress: Progress) => void,
    signal: AbortSignal,
  ): Promise<DownloadResult> {
    if (await this.#isDirectory(this.#layout.release(slot))) {
      // Complete, from an earlier attempt or an earlier pin; verify decides whether it is good.
      await this.#files.rmdir(this.#layout.staging(slot)).catch(ignoreMissing);
      await this.#options.slots.mark(slot, 'written', null);
      return {
        fetchedBytes: 0,
        reusedBytes: 0,
        durationMs: 0,
        failedSources: [],
        rottenSeedChunks: 0,
        way: 'chunks',
        whyNoPatch: null,
        unpatchedChunks: 0,
        savedBytes: offer.manifest.dataBytes,
      };
    }
    const result = await this.#write(offer, slot, onProgress, signal);
    await this.#options.slots.mark(slot, 'written', null);
    return result;
  }

  async verify(
    offer: Offer,
    slot: string,
    onProgress: (progress: Progress) => void,
    signal: AbortSignal,
  ): Promise<void> {
    for (let rewrites = 0; ; rewrites += 1) {
      const isComplete = await this.#isDirectory(this.#layout.release(slot));
      const directory = isComplete ? this.#layout.release(slot) : this.#layout.staging(slot);
      const outcome = await this.#compare(offer, slot, directory, onProgress, signal);
      this.#options.onReadBack?.(slot, outcome);
      if (outcome.differences.length === 0) break;
      await this.#refuseOrUnmake(slot, directory, outcome, !mayRewrite(offer, rewrites));
      await this.#write(offer, slot, onProgress, signal);
    }
    if (!(await this.#isDirectory(this.#layout.release(slot)))) {
      await this.#files.rename(this.#layout.staging(slot), this.#layout.release(slot));
    }
    await syncDirectory(this.#files, this.#layout.releases);
    await this.#options.slots.mark(slot, 'verified', null);
  }

  async #write(
    offer: Offer,
    slot: string,
    onProgress: (progress: Progress) => void,
    signal: AbortSignal,
  ): Promise<DownloadResult> {
    const staging = this.#layout.staging(slot);
    await makeDirectory(this.#files, staging);
    try {
      const outcome = await this.#client.download(
        {
          artifactId: offer.artifactId,
          manifestBytes: offer.manifestBytes,
          sources: offer.sources,
          targets: directoryTargets(offer.manifest, staging),
          staging,
          resumesDevice: false,
          meta: this.#layout.meta(slot),
          seed: await this.#seed(slot),
          settings: this.#options.settings,
        },
        (progress) => onProgress({ phase: 'download', ...progress }),
        signal,
      );
      const { resumedBytes, ...result } = outcome;
      return { ...result, reusedBytes: result.reusedBytes + resumedBytes };
    } catch (error) {
      // The host needs the room more than the next attempt needs these bytes (F18).
      if (isProblem(error, 'E_SPACE')) {
        removeTree(staging);
        removeTree(this.#layout.meta(slot));
      }
      throw error;
    }
  }

  async #compare(
    offer: Offer,
    slot: string,
    directory: string,
    onProgress: (progress: Progress) => void,
    signal: AbortSignal,
  ): Promise<ReadBackOutcome> {
    const rawIndex = await readSlotIndex(this.#files, this.#layout, slot, offer.manifest);
    if (rawIndex === null) {
      const differences = [`${this.#layout.indexFile(slot)} is missing or damaged`];
      return { differences, damagedFiles: [], direct: true, durationMs: 0 };
    }
    const { artifactId, manifestBytes, manifest } = offer;
    return await this.#client.readBack(
      {
        artifactId,
        manifestBytes,
        rawIndex,
        targets: directoryTargets(manifest, directory),
        directory,
        workers: this.#options.settings.workers,
      },
      (progress) => onProgress({ phase: 'verify', ...progress }),
      signal,
    );
  }

  /** Takes back what differs so that it is written anew, or ends with E_SLOT. A slot in use is never touched. */
  async #refuseOrUnmake(
    slot: string,
    directory: string,
    outcome: ReadBackOutcome,
    isLast: boolean,
  ): Promise<void> {
    const { current, previous, former } = this.#layout;
    const links = await Promise.all(
      [current, previous, former].map((path) => readSlotLink(this.#files, path)),
    );
    const isInUse = links.includes(slot);
    if (isLast || isInUse) {
      const told = outcome.differences.slice(0, DIFFERENCES_TOLD);
      const problem = new Problem(
        'E_SLOT',
        `slot ${slot} is not what was written: ${told.join('; ')}`,
        { differences: outcome.differences.length, direct: outcome.direct },
      );
      if (!isInUse) await this.#options.slots.mark(slot, 'bad', problem.message);
      throw problem;
    }
    await this.#options.slots.mark(slot, 'writing', null);
    const staging = this.#layout.staging(slot);
    if (directory !== staging) {
      removeTree(staging);
      await this.#files.rename(directory, staging);
      await syncDirectory(this.#files, this.#layout.releases);
    }
    // Unlinked, not overwritten: the page cache may hold the right bytes of a file whose blocks are bad.
    for (const path of outcome.damagedFiles) {
      rmSync(path.replace(directory, staging), { force: true });
    }
  }

  /** The live slot with its kept index, when it can serve as a seed. */
  async #seed(slot: string): Promise<KeptVersion | null> {
    const live = await readSlotLink(this.#files, this.#layout.current);
    if (live === null || live === slot || !isDirectorySlot(live)) return null;
    const manifestBytes = await readManifestBytes(this.#files, this.#layout, live);
    if (manifestBytes === null) return null;
    const manifest = parseManifest(manifestBytes);
    const rawIndex = await readSlotIndex(this.#files, this.#layout, live, manifest);
    if (rawIndex === null) return null;
    return {
      artifactId: artifactOf(live),
      manifestBytes,
      rawIndex,
      targets: directoryTargets(manifest, this.#layout.release(live)),
    };
  }

  async #isDirectory(path: string): Promise<boolean> {
    return (await this.#files.stat(path))?.kind === 'directory';
  }
}

function ignoreMissing(error: unknown): void {
  if (!isProblem(error)) throw error;
}
