/** Checks a whole patch against both of its bundles: what a host would make of it, without a host. */
import { createHash } from 'node:crypto';
import { open } from 'node:fs/promises';
import { unpackIndex } from '#/bundle/chunk-index.ts';
import { chunkAt } from '#/bundle/chunk-index.ts';
import { isChunk } from '#/bundle/open-chunk.ts';
import {
  chunksMissingFrom,
  dictionaryBuffer,
  inflate,
  openPatchTable,
  parsePatchHeader,
  PATCH_HEADER_BYTES,
  type PatchHeader,
  patchParts,
  streamBytesOf,
} from '#/bundle/patch.ts';
import { dictionaryOf } from '#/control/cli/bundle/patch-build.ts';
import { type OpenBundle, openBundle } from '#/control/cli/bundle/read.ts';
import { createStreamReader } from '#/control/cli/bundle/stream-reader.ts';
import { Problem } from '#/protocol/errors.ts';

export interface PatchFile {
  readonly header: PatchHeader;
  readonly fileBytes: number;
}

/** The header of the patch at `path`. Throws E_NOT_FOUND, E_SCHEMA, E_SIZE, E_LENGTH (cut short or too long). */
export async function readPatchHeader(path: string): Promise<PatchFile> {
  const file = await open(path, 'r').catch((cause: unknown) => {
    throw new Problem('E_NOT_FOUND', `cannot open the patch ${path}`, {}, { cause });
  });
  try {
    const fileBytes = (await file.stat()).size;
    const head = new Uint8Array(Math.min(PATCH_HEADER_BYTES, fileBytes));
    await file.read(head, 0, head.byteLength, 0);
    const header = parsePatchHeader(head, Number.MAX_SAFE_INTEGER);
    const { end } = patchParts(header);
    if (end !== fileBytes) {
      throw new Problem('E_LENGTH', `${path} has ${fileBytes} bytes, its parts need ${end}`);
    }
    return { header, fileBytes };
  } finally {
    await file.close();
  }
}

/**
 * Decodes everything in a patch and compares it with the index of the bundle that it leads to. Throws E_ARTIFACT (for other
 * bundles), E_HASH (something comes out wrong), and what `readPatchHeader` and `openBundle` throw.
 */
export async function verifyPatch(
  path: string,
  fromPath: string,
  toPath: string,
): Promise<PatchFile> {
  const found = await readPatchHeader(path);
  const { header } = found;
  await using from = await openBundle(fromPath, null);
  await using to = await openBundle(toPath, null);
  if (header.from !== from.artifactId || header.to !== to.artifactId) {
    throw new Problem(
      'E_ARTIFACT',
      `${path} leads from ${header.from} to ${header.to}, not from ${from.artifactId} to ${to.artifactId}`,
    );
  }
  if (header.dataBytes > to.manifest.dataBytes) {
    throw new Problem('E_SIZE', `${path} is larger than what it stands for`);
  }
  const parts = patchParts(header);
  await using file = await open(path, 'r');
  const read = async (offset: number, sizeBytes: number): Promise<Uint8Array> => {
    const bytes = new Uint8Array(sizeBytes);
    const { bytesRead } = await file.read(bytes, 0, sizeBytes, offset);
    if (bytesRead !== sizeBytes) throw new Problem('E_LENGTH', `${path} was cut while it was read`);
    return bytes;
  };
  if (header.indexStoredBytes > 0) {
    await checkIndex(await read(parts.index, header.indexStoredBytes), from, to, path);
  }
  const [before, after] = [await from.index(), await to.index()];
  const segments = openPatchTable(
    await read(parts.table, header.tableStoredBytes),
    header,
    chunksMissingFrom(before, after),
    after,
    streamBytesOf(before),
  );
  const old = createStreamReader(from, before);
  for (const [number, { chunks, rawBytes, storedBytes, offset, ranges }] of segments.entries()) {
    if (storedBytes === 0) continue;
    const stored = await read(parts.data + offset, storedBytes);
    const content = inflate(stored, rawBytes, await dictionaryOf(old, ranges));
    let at = 0;
    for (const chunk of chunks) {
      const entry = chunkAt(after, chunk);
      const own = content?.subarray(at, at + entry.rawSize);
      if (own === undefined || !isChunk(own, entry)) {
        throw new Problem('E_HASH', `${path}: segment ${number} does not give chunk ${chunk}`);
      }
      at += entry.rawSize;
    }
  }
  return found;
}

async function checkIndex(
  stored: Uint8Array,
  from: OpenBundle,
  to: OpenBundle,
  path: string,
): Promise<void> {
  const { offset, sizeBytes } = from.located.index;
  const old = unpackIndex(await from.readAt(offset, sizeBytes), from.manifest);
  const { whole, content } = dictionaryBuffer(old.byteLength);
  content.set(old);
  const raw = inflate(stored, to.manifest.index.sizeBytes, whole);
  const digest = raw === null ? null : createHash('sha256').update(raw).digest('hex');
  if (digest !== to.manifest.index.sha256) {
    throw new Problem('E_HASH', `${path}: the patch of the index leads to another index`);
  }
}
