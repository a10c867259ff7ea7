/** Compares what is live with what was signed: content, kinds, modes, links, strays (drift of a host). */
import { availableParallelism } from 'node:os';
import { parseIndex } from '#/bundle/chunk-index.ts';
import { parseManifest } from '#/bundle/manifest.ts';
import { Problem } from '#/protocol/errors.ts';
import { readSlotLink } from './adapters/boot-directory.ts';
import { createExec } from './adapters/exec.ts';
import { nodeFiles } from './adapters/file-port.ts';
import type { DriftView } from './cli/render.ts';
import type { Settings } from './config.ts';
import { directoryLayout } from './install/layout.ts';
import { deviceTargets, partitionLayout } from './install/partition-layout.ts';
import { runReadBack } from './install/read-back-task.ts';
import {
  type MetaLayout,
  readKeptManifest,
  readManifestBytes,
  readSlotIndex,
} from './install/slot-manifest.ts';
import { processWorld } from './install/world.ts';
import { directoryTargets, type PayloadTarget, planWrites } from './install/write-plan.ts';
import { partitionParts } from './partition-parts.ts';
import type { FilePort } from './ports.ts';

/** What lies where in the version that is live. */
interface Live {
  readonly artifactId: string;
  readonly manifestBytes: Uint8Array;
  readonly rawIndex: Uint8Array;
  readonly targets: readonly PayloadTarget[];
  /** Directory that holds exactly what the listing says; null for a partition. */
  readonly directory: string | null;
}

/** @throws Problem E_STATE when the manifest or the index of the live version is not kept. */
export async function verifyLive(settings: Settings): Promise<DriftView> {
  const isPartition = settings.slots.kind === 'partition';
  const live = isPartition ? await livePartition(settings) : await liveDirectory(settings);
  if (live === null) return { artifactId: null, entries: 0, differences: [] };
  const { artifactId, manifestBytes, rawIndex, targets, directory } = live;
  const manifest = parseManifest(manifestBytes);
  const plan = planWrites(manifest, parseIndex(rawIndex, manifest), targets);
  const workers = Math.min(2, availableParallelism());
  const outcome = await runReadBack(
    { artifactId: artifactId.slice(0, 64), manifestBytes, rawIndex, targets, directory, workers },
    processWorld(null),
    () => undefined,
    new AbortController().signal,
  );
  const { files: plain, directories, symlinks, hardlinks } = plan;
  return {
    artifactId,
    entries: plain.length + directories.length + symlinks.length + hardlinks.length,
    differences: outcome.differences.map((text) => differenceOf(text, directory ?? '')),
  };
}

async function liveDirectory(settings: Settings): Promise<Live | null> {
  const files = nodeFiles();
  const layout = directoryLayout(settings.slots.root);
  const slot = await readSlotLink(files, layout.current);
  if (slot === null) return null;
  const directory = layout.release(slot);
  const kept = await keptOf(files, layout, slot, slot);
  const targets = directoryTargets(parseManifest(kept.manifestBytes), directory);
  return { artifactId: slot, ...kept, targets, directory };
}

/** The partition itself, beside its mounted file system, which is read-only. */
async function livePartition(settings: Settings): Promise<Live | null> {
  const files = nodeFiles();
  const { disk } = await partitionParts(settings, { files, exec: createExec() });
  const slot = await disk.live();
  if (slot === null) return null;
  const layout = partitionLayout(settings.state.directory);
  const artifactId = (await readKeptManifest(files, layout, slot))?.artifactId;
  if (artifactId === undefined) throw notKept('manifest', slot);
  const { path, number } = await disk.device(slot);
  const kept = await keptOf(files, layout, slot, artifactId);
  return { artifactId, ...kept, targets: deviceTargets(path, number), directory: null };
}

async function keptOf(
  files: FilePort,
  layout: MetaLayout,
  slot: string,
  artifactId: string,
): Promise<Pick<Live, 'manifestBytes' | 'rawIndex'>> {
  const manifestBytes = await readManifestBytes(files, layout, slot, artifactId);
  if (manifestBytes === null) throw notKept('manifest', slot);
  const rawIndex = await readSlotIndex(files, layout, slot, parseManifest(manifestBytes));
  if (rawIndex === null) throw notKept('index', slot);
  return { manifestBytes, rawIndex };
}

function notKept(what: string, slot: string): Problem {
  return new Problem('E_STATE', `the ${what} of ${slot} is not kept`);
}

/** `<directory>/<path> <what>`, split; a path may hold spaces, so the known words of the end are looked for. */
function differenceOf(text: string, directory: string): DriftView['differences'][number] {
  const match =
    /^(.*?) (has (?:owner|mode|other content).*|is (?:no|another|not) .*|is missing)$/s.exec(text);
  const path = match?.[1] ?? text;
  const relative = path.startsWith(`${directory}/`) ? path.slice(directory.length + 1) : path;
  return { path: relative, what: match?.[2] ?? 'differs' };
}
