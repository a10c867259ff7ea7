/** The manifest and the chunk index that are kept beside a slot: what the next delta and a read-back start from. */
import { createHash } from 'node:crypto';
import { readFile } from '#/agent/adapters/durable.ts';
import type { FilePort } from '#/agent/ports.ts';
import { INDEX_MAX_BYTES } from '#/bundle/chunk-index.ts';
import { MANIFEST_MAX_BYTES, type Manifest, parseManifest } from '#/bundle/manifest.ts';
import { isProblem } from '#/protocol/errors.ts';
import { type ArtifactId, artifactId as artifactIdSchema } from '#/protocol/ids.ts';
import * as v from 'valibot';

/** A version id begins with the id of its artifact. */
const ARTIFACT_DIGITS = 64;

/** Where they are kept. */
export interface MetaLayout {
  manifestFile(slot: string): string;
  indexFile(slot: string): string;
}

/**
 * The manifest bytes of a slot, checked against the artifact id, which in directories begins the slot's name; null when they are
 * not there or other bytes.
 */
export async function readManifestBytes(
  files: FilePort,
  layout: MetaLayout,
  slot: string,
  artifactId: string = slot.slice(0, ARTIFACT_DIGITS),
): Promise<Uint8Array | null> {
  const bytes = await readKept(files, layout.manifestFile(slot), MANIFEST_MAX_BYTES);
  return bytes === null || sha256(bytes) !== artifactId ? null : bytes;
}

/** The manifest of a slot, as `readManifestBytes`. */
export async function readSlotManifest(
  files: FilePort,
  layout: MetaLayout,
  slot: string,
  artifactId: string = slot.slice(0, ARTIFACT_DIGITS),
): Promise<Manifest | null> {
  const bytes = await readManifestBytes(files, layout, slot, artifactId);
  // Its digest is the artifact id, so it is the manifest that was verified when the slot was written.
  return bytes === null ? null : parseManifest(bytes);
}

/** The manifest that is kept for a slot with its own digest as the artifact id, where nothing else names the artifact. */
export async function readKeptManifest(
  files: FilePort,
  layout: MetaLayout,
  slot: string,
): Promise<{ readonly artifactId: ArtifactId; readonly manifest: Manifest } | null> {
  const bytes = await readKept(files, layout.manifestFile(slot), MANIFEST_MAX_BYTES);
  if (bytes === null) return null;
  try {
    return { artifactId: v.parse(artifactIdSchema, sha256(bytes)), manifest: parseManifest(bytes) };
  } catch (error) {
    if (isProblem(error)) return null;
    throw error;
  }
}

/** The raw chunk index of a slot, checked against its manifest; null when it is not there or damaged. */
export async function readSlotIndex(
  files: FilePort,
  layout: MetaLayout,
  slot: string,
  manifest: Manifest,
): Promise<Uint8Array | null> {
  const bytes = await readKept(files, layout.indexFile(slot), INDEX_MAX_BYTES);
  return bytes === null || sha256(bytes) !== manifest.index.sha256 ? null : bytes;
}

async function readKept(
  files: FilePort,
  path: string,
  limitBytes: number,
): Promise<Uint8Array | null> {
  try {
    return await readFile(files, path, limitBytes);
  } catch (error) {
    // Without it the next update is larger, not wrong.
    if (isProblem(error, 'E_STATE', 'E_IO')) return null;
    throw error;
  }
}

function sha256(bytes: Uint8Array): string {
  return createHash('sha256').update(bytes).digest('hex');
}
