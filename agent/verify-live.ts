/** Compares what is live with what was signed: content, kinds, modes, links, strays (drift of a host). */
import { availableParallelism } from 'node:os';
import { parseIndex } from '#/bundle/chunk-index.ts';
import { parseManifest } from '#/bundle/manifest.ts';
import { Problem } from '#/protocol/errors.ts';
import { readSlotLink } from './adapters/boot-directory.ts';
import { nodeFiles } from './adapters/file-port.ts';
import type { DriftView } from './cli/render.ts';
import type { Settings } from './config.ts';
import { directoryLayout } from './install/layout.ts';
import { runReadBack } from './install/read-back-task.ts';
import { readManifestBytes, readSlotIndex } from './install/slot-manifest.ts';
import { processWorld } from './install/world.ts';
import { directoryTargets, planWrites } from './install/write-plan.ts';

/** @throws Problem E_STATE when the manifest or the index of the live version is not kept. */
export async function verifyLive(settings: Settings): Promise<DriftView> {
  const files = nodeFiles();
  const layout = directoryLayout(settings.slots.root);
  const slot = await readSlotLink(files, layout.current);
  if (slot === null) return { artifactId: null, entries: 0, differences: [] };
  const manifestBytes = await readManifestBytes(files, layout, slot);
  if (manifestBytes === null) throw new Problem('E_STATE', `the manifest of ${slot} is not kept`);
  const manifest = parseManifest(manifestBytes);
  const rawIndex = await readSlotIndex(files, layout, slot, manifest);
  if (rawIndex === null) throw new Problem('E_STATE', `the index of ${slot} is not kept`);
  const directory = layout.release(slot);
  const targets = directoryTargets(manifest, directory);
  const plan = planWrites(manifest, parseIndex(rawIndex, manifest), targets);
  const workers = Math.min(2, availableParallelism());
  const outcome = await runReadBack(
    { artifactId: slot, manifestBytes, rawIndex, targets, directory, workers },
    processWorld(null),
    () => undefined,
    new AbortController().signal,
  );
  const { files: plain, directories, symlinks, hardlinks } = plan;
  return {
    artifactId: slot,
    entries: plain.length + directories.length + symlinks.length + hardlinks.length,
    differences: outcome.differences.map((text) => differenceOf(text, directory)),
  };
}

/** `<directory>/<path> <what>`, split; a path may hold spaces, so the known words of the end are looked for. */
function differenceOf(text: string, directory: string): DriftView['differences'][number] {
  const match =
    /^(.*?) (has (?:owner|mode|other content).*|is (?:no|another|not) .*|is missing)$/s.exec(text);
  const path = match?.[1] ?? text;
  const relative = path.startsWith(`${directory}/`) ? path.slice(directory.length + 1) : path;
  return { path: relative, what: match?.[2] ?? 'differs' };
}
