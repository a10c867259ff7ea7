/** The patch beside a bundle: is it for this pair of versions, what does it hold, and what index does it lead to. */
import { createHash } from 'node:crypto';
import { type ChunkIndex, parseIndex } from '#/bundle/chunk-index.ts';
import type { Manifest } from '#/bundle/manifest.ts';
import {
  chunksMissingFrom,
  dictionaryBuffer,
  inflate,
  openPatchTable,
  parsePatchHeader,
  PATCH_HEADER_BYTES,
  type PatchHeader,
  patchParts,
  patchPathOf,
  type PatchSegment,
  streamBytesOf,
} from '#/bundle/patch.ts';
import { isProblem, Problem } from '#/protocol/errors.ts';
import { readAll } from './container-reader.ts';
import type { OpenSeed } from './seed-plan.ts';
import type { Source } from './source.ts';

export interface OpenedPatch {
  readonly source: Source;
  readonly header: PatchHeader;
  /** The new index, from the patch; null when the patch has none. */
  readonly index: { readonly parsed: ChunkIndex; readonly raw: Uint8Array } | null;
  /** The segments, once the new index is known. Throws E_SCHEMA, E_SIZE, E_HASH. */
  readonly segments: (wanted: ChunkIndex) => PatchSegment[];
  /** Where the segments start in the file. */
  readonly dataOffset: number;
  readonly fetchedBytes: number;
}

/** Address of the patch from `from` beside the bundle at `url`. */
export function patchUrlOf(url: string, from: string): string {
  const address = new URL(url);
  address.pathname = patchPathOf(address.pathname, from);
  return address.href;
}

/**
 * Opens the patch at `source`. Nothing in it is trusted: `manifest` is the offer's, the index must have its digest. Throws
 * E_ARTIFACT (for other versions), E_SCHEMA, E_SIZE, E_HASH, and the transport problems of source.ts: of those E_HTTP with
 * status 404 says that there is none.
 */
export async function openPatch(
  source: Source,
  artifactId: string,
  manifest: Manifest,
  seed: OpenSeed,
  signal: AbortSignal,
): Promise<OpenedPatch> {
  const head = await readAll(source, 0, PATCH_HEADER_BYTES, signal);
  const header = parsePatchHeader(head, manifest.dataBytes);
  if (header.from !== seed.artifactId || header.to !== artifactId) {
    throw new Problem('E_ARTIFACT', `${source.describe().url} is a patch for other versions`);
  }
  const parts = patchParts(header);
  const rest = await readAll(source, parts.index, parts.data - parts.index, signal);
  const indexStored = rest.subarray(0, header.indexStoredBytes);
  const tableStored = rest.subarray(header.indexStoredBytes);
  return {
    source,
    header,
    index: header.indexStoredBytes === 0 ? null : openIndexPatch(indexStored, manifest, seed),
    segments: (wanted) => {
      const missing = chunksMissingFrom(seed.index, wanted);
      return openPatchTable(tableStored, header, missing, wanted, streamBytesOf(seed.index));
    },
    dataOffset: parts.data,
    fetchedBytes: parts.data,
  };
}

function openIndexPatch(
  stored: Uint8Array,
  manifest: Manifest,
  seed: OpenSeed,
): { parsed: ChunkIndex; raw: Uint8Array } {
  const { sizeBytes, sha256 } = manifest.index;
  const { whole, content } = dictionaryBuffer(seed.rawIndex.byteLength);
  content.set(seed.rawIndex);
  const raw = inflate(stored, sizeBytes, whole);
  if (raw === null || createHash('sha256').update(raw).digest('hex') !== sha256) {
    throw new Problem('E_HASH', 'the patch of the index leads to another index');
  }
  return { parsed: parseIndex(raw, manifest), raw };
}

/** Why a patch was not used, in a word, for reports: a code of errors.ts, or `none` where there is no patch. */
export function whyNoPatch(error: unknown): string {
  if (!isProblem(error)) throw error;
  const { status } = error.details;
  const isMissing = isProblem(error, 'E_HTTP') && (status === 404 || status === 410);
  const isMissingFile = isProblem(error, 'E_IO') && error.details['errno'] === 'ENOENT';
  return isMissing || isMissingFile ? 'none' : error.code;
}
