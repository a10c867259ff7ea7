/**
 * Slots of a directory host. Layout: agent/install/layout.ts; order of steps: docs/specs/agent-machine.md, D1-D15.
 * What is on the disk decides; a record adds what the disk cannot say (verified, good, bad and why).
 */
import { bytesText } from '#/agent/core/words.ts';
import type { FilePort, Offer, SlotRecord, Slots, SlotStatus } from '#/agent/ports.ts';
import { classifyEntry, directoryLayout, isDirectorySlot } from '#/agent/install/layout.ts';
import { readSlotManifest } from '#/agent/install/slot-manifest.ts';
import { Problem } from '#/protocol/errors.ts';
import { type VersionId, versionId as versionIdSchema, versionIdOf } from '#/protocol/ids.ts';
import * as v from 'valibot';
import { readSlotLink } from './boot-directory.ts';
import { makeDirectory, removeTemporaries, syncDirectory } from './durable.ts';
import { errnoOf } from './file-port.ts';
import { requireSameRoot } from './root-identity.ts';
import { slotRecords } from './slot-records.ts';

/** Every file may leave a part of its last block unused. */
const BLOCK_BYTES = 4096;
/** Directories and files around a version: staging, meta, manifest, index, links. */
const META_INODES = 16;
const RELEASES_MODE = 0o755;
/** Deeper trees are refused by the listing; this only ends a removal that met something else. */
const REMOVE_MAX_DEPTH = 512;

/** What a file system has left. */
export interface Space {
  readonly freeBytes: number;
  /** Null where the file system does not count inodes. */
  readonly freeInodes: number | null;
}

export interface DirectorySlotsOptions {
  /** Directory that holds releases/, current and previous. It exists. */
  readonly root: string;
  /** State directory of the agent; the records live in its `slots/`. */
  readonly stateDirectory: string;
  readonly files: FilePort;
  /** Of the file system of a path: statfs, or the simulation's. */
  readonly space: (path: string) => Promise<Space>;
  /** Bytes that a directory takes up now; 0 when it is not there. */
  readonly usedBytes: (path: string) => Promise<number>;
  /** Mount points at or below a path. */
  readonly mountsBelow: (path: string) => Promise<readonly string[]>;
  /** Lets the owner of a directory write in it: read-only ones stand in the way of their removal for all but root. */
  readonly openUp?: (path: string) => Promise<void>;
  /** Kept free at all times. */
  readonly reserveBytes: number;
  readonly reserveInodes: number;
  /** 32 random hex digits: the id of a root that was never used. */
  readonly newRootId: () => string;
}

/** The slots below `root`. A slot is named by its version id. */
export function createDirectorySlots(options: DirectorySlotsOptions): Slots {
  return new DirectorySlots(options);
}

class DirectorySlots implements Slots {
  readonly kind = 'directory';
  readonly #options: DirectorySlotsOptions;
  readonly #files: FilePort;
  readonly #layout: ReturnType<typeof directoryLayout>;
  readonly #records: ReturnType<typeof slotRecords>;

  constructor(options: DirectorySlotsOptions) {
    this.#options = options;
    this.#files = options.files;
    this.#layout = directoryLayout(options.root);
    this.#records = slotRecords(options.files, options.stateDirectory);
  }

  async targetFor(version: VersionId): Promise<string> {
    return version;
  }

  async observe(): Promise<{
    live: string | null;
    liveArtifact: VersionId | null;
    slots: readonly SlotRecord[];
  }> {
    const live = await readSlotLink(this.#files, this.#layout.current);
    const present = await this.#present();
    const records = new Map((await this.#records.list()).map((record) => [record.slot, record]));
    const names = new Set([...records.keys(), ...present.releases, ...present.staging]);
    const slots: SlotRecord[] = [];
    for (const slot of [...names].filter(isDirectorySlot).sort()) {
      slots.push(await this.#reconcile(slot, records.get(slot) ?? null, present, slot === live));
    }
    const isThere = live !== null && present.releases.has(live);
    return { live, liveArtifact: isThere ? toVersionId(live) : null, slots };
  }

  async preflight(offer: Offer, slot: string): Promise<void> {
    await this.#requireSameRoot();
    await this.#requireTarget(offer, slot);
    for (const path of [this.#layout.release(slot), this.#layout.staging(slot)]) {
      const mounts = await this.#options.mountsBelow(path);
      if (mounts.length > 0) {
        throw new Problem('E_NOT_ALLOWED_NOW', `${mounts[0]} is mounted in the target slot`, {
          path,
        });
      }
    }
    if (await this.#isComplete(slot)) return;
    const { manifest } = offer;
    let needBytes = manifest.index.sizeBytes + this.#options.reserveBytes;
    let needInodes = this.#options.reserveInodes + META_INODES;
    for (const payload of manifest.payloads) {
      const entries = payload.kind === 'tree' ? payload.entryCount : 1;
      needBytes += payload.sizeBytes + entries * BLOCK_BYTES;
      needInodes += entries;
    }
    needBytes -= await this.#options.usedBytes(this.#layout.staging(slot));
    await this.#requireSpace(Math.max(needBytes, this.#options.reserveBytes), needInodes);
  }

  async begin(offer: Offer, slot: string): Promise<void> {
    await this.#requireSameRoot();
    await this.#requireTarget(offer, slot);
    const { version, release } = offer.manifest;
    const artifactId = versionIdOf(offer.artifactId, offer.configId);
    const named = { slot, artifactId, version, release };
    await this.#records.write({ ...named, status: 'writing', reason: null });
    await this.#makeReleases();
    await makeDirectory(this.#files, this.#layout.staging(slot));
  }

  /** Readable by all, unlike what is written in it: services run as users of their own. */
  async #makeReleases(): Promise<void> {
    const { releases } = this.#layout;
    if ((await this.#files.stat(releases)) === null) {
      await this.#files.mkdir(releases, RELEASES_MODE);
    }
    await makeDirectory(this.#files, releases);
  }

  async mark(slot: string, status: SlotStatus, reason: string | null): Promise<void> {
    requireSlotName(slot);
    const known = (await this.#records.read(slot)) ?? (await this.#recordFromManifest(slot));
    await this.#records.write({ ...known, status, reason });
  }

  async discard(slot: string): Promise<void> {
    requireSlotName(slot);
    await this.#requireSameRoot();
    const inUse = await this.#inUse();
    if (inUse.has(slot)) {
      throw new Problem('E_NOT_ALLOWED_NOW', `slot ${slot} is in use: ${inUse.get(slot)}`);
    }
    await this.#remove(slot);
  }

  async prune(keep: readonly string[]): Promise<void> {
    await this.#requireSameRoot();
    await removeTemporaries(this.#files, this.#options.root);
    if ((await this.#files.stat(this.#layout.releases)) === null) return;
    const kept = new Set([...keep, ...(await this.#inUse()).keys()]);
    const slots = new Set<string>();
    for (const { name } of await this.#files.list(this.#layout.releases)) {
      const { kind, slot } = classifyEntry(name);
      if (kind === 'foreign') continue;
      if (kind === 'condemned') await this.#removeTree(this.#layout.condemned(slot), 0);
      if (!kept.has(slot)) slots.add(slot);
    }
    for (const record of await this.#records.list()) {
      // A bad slot's record is kept by its reason in the deny-list; the file only speaks of what is on the disk.
      if (isDirectorySlot(record.slot) && !kept.has(record.slot)) slots.add(record.slot);
    }
    for (const slot of slots) await this.#remove(slot);
  }

  async #requireSameRoot(): Promise<void> {
    const { root, stateDirectory, newRootId } = this.#options;
    await requireSameRoot(this.#files, root, stateDirectory, newRootId);
  }

  /** Slots that must never be written or removed, with the link that says so. */
  async #inUse(): Promise<Map<string, string>> {
    const inUse = new Map<string, string>();
    for (const path of [this.#layout.current, this.#layout.previous, this.#layout.former]) {
      const slot = await readSlotLink(this.#files, path);
      if (slot !== null) inUse.set(slot, `${path} points to it`);
    }
    return inUse;
  }

  async #requireTarget(offer: Offer, slot: string): Promise<void> {
    requireSlotName(slot);
    const version = versionIdOf(offer.artifactId, offer.configId);
    if (slot !== version) {
      throw new Problem('E_NOT_ALLOWED_NOW', `slot ${slot} is not the slot of ${version}`);
    }
    if ((await readSlotLink(this.#files, this.#layout.current)) === slot) {
      throw new Problem('E_NOT_ALLOWED_NOW', `slot ${slot} is live and is never written`);
    }
  }

  async #requireSpace(needBytes: number, needInodes: number): Promise<void> {
    const { root } = this.#options;
    const { freeBytes, freeInodes } = await this.#options.space(root);
    if (freeBytes < needBytes) {
      const missingBytes = needBytes - freeBytes;
      throw new Problem(
        'E_SPACE',
        `${bytesText(missingBytes)} are missing on ${root}: ${bytesText(needBytes)} needed, ${bytesText(this.#options.reserveBytes)} of it a reserve, ${bytesText(freeBytes)} free`,
        { path: root, missingBytes, needBytes, freeBytes },
      );
    }
    if (freeInodes !== null && freeInodes < needInodes) {
      throw new Problem(
        'E_SPACE',
        `${needInodes - freeInodes} inodes are missing on ${root}: ${needInodes} needed, ${freeInodes} free`,
        { path: root, missingInodes: needInodes - freeInodes },
      );
    }
  }

  async #isComplete(slot: string): Promise<boolean> {
    return (await this.#files.stat(this.#layout.release(slot)))?.kind === 'directory';
  }

  async #present(): Promise<{ releases: Set<string>; staging: Set<string> }> {
    const releases = new Set<string>();
    const staging = new Set<string>();
    if ((await this.#files.stat(this.#layout.releases)) !== null) {
      for (const entry of await this.#files.list(this.#layout.releases)) {
        const { kind, slot } = classifyEntry(entry.name);
        if (entry.kind !== 'directory') continue;
        if (kind === 'release') releases.add(slot);
        if (kind === 'staging') staging.add(slot);
      }
    }
    return { releases, staging };
  }

  /** Reality wins: a record without its directory is empty, a directory without a record was not verified. */
  async #reconcile(
    slot: string,
    record: SlotRecord | null,
    present: { releases: Set<string>; staging: Set<string> },
    isLive: boolean,
  ): Promise<SlotRecord> {
    const complete = present.releases.has(slot);
    if (record === null) {
      const status = isLive && complete ? 'good' : complete ? 'written' : 'writing';
      return { ...(await this.#recordFromManifest(slot)), status };
    }
    const needsDirectory = !['empty', 'writing', 'bad'].includes(record.status);
    if (needsDirectory && !complete && !present.staging.has(slot)) {
      return { ...record, status: 'empty', reason: 'its directory is missing' };
    }
    // Verified content that is still in staging was never renamed: not selectable, so not verified.
    if (['verified', 'trial', 'good'].includes(record.status) && !complete) {
      return { ...record, status: 'written', reason: null };
    }
    return record;
  }

  async #recordFromManifest(slot: string): Promise<SlotRecord> {
    const manifest = await readSlotManifest(this.#files, this.#layout, slot);
    return {
      slot,
      status: 'written',
      artifactId: toVersionId(slot),
      version: manifest?.version ?? null,
      release: manifest?.release ?? null,
      reason: null,
    };
  }

  /** Unselectable first, gone after: a crash in between leaves only what the next prune removes. */
  async #remove(slot: string): Promise<void> {
    const { releases } = this.#layout;
    if ((await this.#files.stat(releases)) !== null) {
      const condemned = this.#layout.condemned(slot);
      await this.#removeTree(condemned, 0);
      if (await this.#isComplete(slot)) {
        await this.#files.rename(this.#layout.release(slot), condemned);
        await syncDirectory(this.#files, releases);
      }
      for (const path of [condemned, this.#layout.staging(slot), this.#layout.meta(slot)]) {
        await this.#removeTree(path, 0);
      }
      await syncDirectory(this.#files, releases);
    }
    await this.#records.remove(slot);
  }

  /** Removes a directory with all in it, following no link and crossing no mount (a mount point refuses to go). */
  async #removeTree(path: string, depth: number): Promise<void> {
    const found = await this.#files.stat(path);
    if (found === null) return;
    if (found.kind !== 'directory') {
      await this.#files.unlink(path);
      return;
    }
    await this.#options.openUp?.(path);
    if (depth > REMOVE_MAX_DEPTH) throw new Problem('E_IO', `${path} is nested too deeply`);
    for (const entry of await this.#files.list(path)) {
      const child = `${path}/${entry.name}`;
      if (entry.kind === 'directory') await this.#removeTree(child, depth + 1);
      else await this.#files.unlink(child);
    }
    try {
      await this.#files.rmdir(path);
    } catch (error) {
      if (errnoOf(error) !== 'ENOENT') throw error;
    }
  }
}

function toVersionId(slot: string): VersionId {
  return v.parse(versionIdSchema, slot);
}

function requireSlotName(slot: string): void {
  if (!isDirectorySlot(slot)) {
    throw new Problem('E_USAGE', `${JSON.stringify(slot.slice(0, 100))} is not the name of a slot`);
  }
}
