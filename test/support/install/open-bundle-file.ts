/** The offer of a bundle file, taken at its word: for tests that start from a file alone. */
import { createHash } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import type { Offer } from '#/agent/ports.ts';
import { locateMembers } from '#/bundle/container.ts';
import { parseManifest } from '#/bundle/manifest.ts';
import type { ArtifactId } from '#/protocol/ids.ts';

export async function openBundleFile(path: string, sources: readonly string[]): Promise<Offer> {
  const bytes = await readFile(path);
  const located = locateMembers(bytes);
  if ('needBytes' in located) throw new Error('the file is no bundle');
  const { offset, sizeBytes } = located.manifest;
  const manifestBytes = new Uint8Array(bytes.subarray(offset, offset + sizeBytes));
  const artifactId = createHash('sha256').update(manifestBytes).digest('hex') as ArtifactId;
  const manifest = parseManifest(manifestBytes);
  return {
    artifactId,
    manifest,
    manifestBytes,
    sources,
    rolloutId: null,
    seq: 1,
    retryGeneration: 0,
  };
}
