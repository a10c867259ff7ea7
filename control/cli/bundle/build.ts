/**
 * Builds a bundle file from a directory or an image: reproducible to the byte, whatever the number of cores and whoever
 * builds it. Format: docs/specs/bundle-format.md.
 */
import { createHash } from 'node:crypto';
import { mkdtemp, open, rm, stat } from 'node:fs/promises';
import { availableParallelism } from 'node:os';
import { basename, dirname, join, resolve } from 'node:path';
import type { ChunkerName } from '#/bundle/chunk-index.ts';
import { encodeEnvelope, MANIFEST_PAYLOAD_TYPE, signEnvelope } from '#/bundle/dsse.ts';
import { encodeIndex, packIndex, type PayloadPieces } from '#/bundle/index-encode.ts';
import type { Signer } from '#/bundle/keys.ts';
import {
  artifactIdOf,
  encodeManifest,
  type Manifest,
  MANIFEST_SCHEMA,
  type Payload,
} from '#/bundle/manifest.ts';
import { encodeTreeList } from '#/bundle/tree-list.ts';
import { type ChunkContext, chunkImage, chunkTree } from '#/control/cli/bundle/chunk-payload.ts';
import { createChunkStore } from '#/control/cli/bundle/chunk-store.ts';
import { createChunkWriter } from '#/control/cli/bundle/chunk-writer.ts';
import { createCompressPool } from '#/control/cli/bundle/compress-pool.ts';
import type { Definition, PayloadDefinition } from '#/control/cli/bundle/definition.ts';
import { provenanceLine } from '#/control/cli/bundle/provenance.ts';
import { type ScannedEntry, scanTree } from '#/control/cli/bundle/scan-tree.ts';
import { writeBundle } from '#/control/cli/bundle/write-bundle.ts';
import { isProblem, Problem } from '#/protocol/errors.ts';
import type { ArtifactId } from '#/protocol/ids.ts';

export interface BuildProgress {
  readonly phase: 'scan' | 'chunk' | 'write';
  readonly doneBytes: number;
  readonly totalBytes: number;
  /** Bytes of distinct compressed chunks so far. */
  readonly storedBytes: number;
}

export interface BuildOptions {
  readonly definition: Definition;
  /** A directory (payload `root`, kind tree) or an image file; not needed when the definition lists payloads. */
  readonly input?: string;
  /** What paths of payloads are relative to. */
  readonly baseDir?: string;
  /** The bundle file; replaced atomically. */
  readonly out: string;
  /** Seconds since 1970. */
  readonly sourceDateEpoch: number;
  /** Sign the manifest and the provenance; at least one. */
  readonly signers: readonly Signer[];
  /** Named in the provenance; a URI. */
  readonly builderId?: string;
  /** Source of the content, for the provenance: URI and digests, for example of a git commit. */
  readonly source?: { readonly uri: string; readonly digest: Readonly<Record<string, string>> };
  /** Version of the program that builds, for the provenance. */
  readonly toolVersion?: string;
  /** Compressing threads; all cores unless given. Does not change the result. */
  readonly workers?: number;
  readonly onProgress?: (progress: BuildProgress) => void;
  readonly signal?: AbortSignal;
}

export interface BuildResult {
  readonly artifactId: ArtifactId;
  readonly manifest: Manifest;
  readonly manifestBytes: Uint8Array;
  readonly path: string;
  readonly bundleBytes: number;
  /** Distinct chunks and their stored bytes. */
  readonly chunkCount: number;
  readonly durationMs: number;
}

/** Builds, signs and writes a bundle. Throws E_CONFIG, E_PATH, E_MODE, E_SIZE, E_IO, E_SPACE; `out` is untouched then. */
export async function buildBundle(options: BuildOptions): Promise<BuildResult> {
  try {
    return await build(options);
  } catch (error) {
    throw asProblem(error, options.out);
  }
}

/** A payload that was found on the disk and not read yet. */
interface Scanned {
  readonly definition: PayloadDefinition;
  readonly path: string;
  readonly sizeBytes: number;
  /** Null for an image. */
  readonly entries: readonly ScannedEntry[] | null;
}

async function build(options: BuildOptions): Promise<BuildResult> {
  const started = performance.now();
  if (options.signers.length === 0)
    throw new Problem('E_CONFIG', 'a bundle needs at least one signer');
  const scanned: Scanned[] = [];
  for (const definition of await payloadsOf(options)) scanned.push(await scan(definition, options));
  const out = resolve(options.out);
  const scratch = await mkdtemp(join(dirname(out), `.${basename(out)}.`));
  const workers = Math.max(1, options.workers ?? availableParallelism());
  const pool = createCompressPool(workers);
  try {
    await using data = await open(join(scratch, 'chunks.data'), 'wx+', 0o600);
    const level = options.definition.compressionLevel;
    const writer = createChunkWriter(data, pool, { workers, level });
    const store = createChunkStore(writer);
    const progress = progressOf(options, scanned, writer.storedBytes);
    const context: ChunkContext = {
      store,
      onBytes: (bytes) => progress('chunk', bytes),
      signal: options.signal,
    };
    const pieces: PayloadPieces[] = [];
    const payloads: Payload[] = [];
    for (const one of scanned) {
      const done = await chunkOne(one, context);
      pieces.push(done.pieces);
      payloads.push(done.payload);
    }
    const chunks = await writer.finish();
    const index = encodeIndex(chunks, pieces);
    const manifest = manifestOf(options, payloads, index, writer.storedBytes());
    const manifestBytes = encodeManifest(manifest);
    const artifactId = artifactIdOf(manifestBytes);
    const envelope = signEnvelope(MANIFEST_PAYLOAD_TYPE, manifestBytes, options.signers);
    const bundleBytes = await writeBundle(
      {
        created: manifest.created,
        manifest: manifestBytes,
        envelope: encodeEnvelope(envelope),
        attestations: provenanceLine(provenanceOf(options, manifest, artifactId), options.signers),
        index: packIndex(index),
        readData: async (offset, sizeBytes) => {
          const buffer = new Uint8Array(sizeBytes);
          const { bytesRead } = await data.read(buffer, 0, sizeBytes, offset);
          return buffer.subarray(0, bytesRead);
        },
        dataBytes: manifest.dataBytes,
      },
      join(scratch, 'bundle'),
      out,
      (bytes) => progress('write', bytes),
      options.signal,
    );
    const durationMs = Math.round(performance.now() - started);
    const chunkCount = chunks.length;
    return { artifactId, manifest, manifestBytes, path: out, bundleBytes, chunkCount, durationMs };
  } finally {
    await pool.close();
    await rm(scratch, { recursive: true, force: true });
  }
}

/** The payloads of the definition, or the one that the input is. */
async function payloadsOf(options: BuildOptions): Promise<readonly PayloadDefinition[]> {
  const { definition, input } = options;
  if (definition.payloads !== undefined) {
    if (input !== undefined)
      throw new Problem('E_CONFIG', 'both an input and payloads in the definition are given');
    return definition.payloads;
  }
  if (input === undefined)
    throw new Problem('E_CONFIG', 'neither an input nor payloads in the definition are given');
  const isTree = (await stat(input)).isDirectory();
  return [
    {
      name: 'root',
      kind: isTree ? 'tree' : 'image',
      path: resolve(input),
      keepOwners: false,
      allowSetuid: false,
      allowCaseCollisions: false,
      allowAbsoluteLinks: false,
    },
  ];
}

async function scan(definition: PayloadDefinition, options: BuildOptions): Promise<Scanned> {
  const path = resolve(options.baseDir ?? '.', definition.path);
  const found = await stat(path);
  if (definition.kind === 'image') {
    if (!found.isFile()) throw new Problem('E_CONFIG', `image ${path} is not a file`);
    return { definition, path, sizeBytes: found.size, entries: null };
  }
  if (!found.isDirectory()) throw new Problem('E_CONFIG', `tree ${path} is not a directory`);
  const { keepOwners } = definition;
  const entries = await scanTree(path, { keepOwners, signal: options.signal });
  if (entries.length === 0) throw new Problem('E_CONFIG', `tree ${path} is empty`);
  const sizeBytes = entries.reduce((sum, entry) => sum + entry.sizeBytes, 0);
  return { definition, path, sizeBytes, entries };
}

/** The tree must lie in the image: what is outside of it is not written. */
function verityOf({ verity, path }: PayloadDefinition, sizeBytes: number): object {
  if (verity === undefined) return {};
  const { rootHash, hashOffsetBytes } = verity;
  if (hashOffsetBytes % 4096 !== 0 || hashOffsetBytes >= sizeBytes) {
    throw new Problem(
      'E_CONFIG',
      `verity.hashOffsetBytes of ${path} is ${hashOffsetBytes}, the image has ${sizeBytes} bytes: expected a multiple of 4096 in it`,
    );
  }
  return { verityRootHash: rootHash, verityHashOffsetBytes: hashOffsetBytes };
}

async function chunkOne(
  { definition, path, sizeBytes, entries }: Scanned,
  context: ChunkContext,
): Promise<{ readonly pieces: PayloadPieces; readonly payload: Payload }> {
  const { name } = definition;
  if (entries === null) {
    const chunker: ChunkerName = definition.chunker ?? 'acdc-32k';
    const { pieces, sha256 } = await chunkImage(path, sizeBytes, chunker, context);
    const chunkCount = pieces.pieces.length;
    const image = { kind: 'image', name, chunker, sizeBytes, chunkCount, sha256 } as const;
    return { pieces, payload: { ...image, ...verityOf(definition, sizeBytes) } };
  }
  const chunker: ChunkerName = definition.chunker ?? 'fastcdc-16k';
  // Only what is granted stands in the manifest, so that a grant is seen by whoever reads it.
  const granted = (['allowSetuid', 'allowCaseCollisions', 'allowAbsoluteLinks'] as const).filter(
    (rule) => definition[rule],
  );
  const rules = Object.fromEntries(granted.map((rule) => [rule, true]));
  const pieces = await chunkTree(path, entries, chunker, rules, context);
  const treeSha256 = createHash('sha256').update(encodeTreeList(pieces.entries)).digest('hex');
  const chunkCount = pieces.pieces.length;
  const entryCount = entries.length;
  return {
    pieces,
    payload: {
      kind: 'tree',
      name,
      chunker,
      sizeBytes,
      chunkCount,
      entryCount,
      treeSha256,
      ...rules,
    },
  };
}

function manifestOf(
  options: BuildOptions,
  payloads: Payload[],
  index: Uint8Array,
  dataBytes: number,
): Manifest {
  const { definition } = options;
  return {
    schema: MANIFEST_SCHEMA,
    name: definition.name,
    class: definition.class,
    arch: definition.arch,
    version: definition.version,
    release: definition.release,
    created: options.sourceDateEpoch,
    minAgent: definition.minAgent,
    minFrom: definition.minFrom,
    index: {
      sha256: createHash('sha256').update(index).digest('hex'),
      sizeBytes: index.byteLength,
    },
    dataBytes,
    payloads,
    activation: definition.activation,
    health: definition.health,
    trial: definition.trial,
    ...(definition.config === undefined ? {} : { config: definition.config }),
  };
}

function provenanceOf(
  options: BuildOptions,
  manifest: Manifest,
  artifactId: ArtifactId,
): Parameters<typeof provenanceLine>[0] {
  return {
    artifactId,
    manifest,
    builderId: options.builderId,
    source: options.source,
    compressionLevel: options.definition.compressionLevel,
    versions: {
      switchback: options.toolVersion ?? 'unknown',
      node: process.versions.node,
      zstd: process.versions['zstd'] ?? 'unknown',
    },
  };
}

function progressOf(
  options: BuildOptions,
  scanned: readonly Scanned[],
  storedBytes: () => number,
): (phase: BuildProgress['phase'], bytes: number) => void {
  const done = { scan: 0, chunk: 0, write: 0 };
  const contentBytes = scanned.reduce((sum, one) => sum + one.sizeBytes, 0);
  return (phase, bytes) => {
    done[phase] += bytes;
    const totalBytes = phase === 'write' ? storedBytes() : contentBytes;
    options.onProgress?.({ phase, doneBytes: done[phase], totalBytes, storedBytes: storedBytes() });
  };
}

/** Errors of the file system as problems; an abort and bugs stay what they are. */
function asProblem(error: unknown, out: string): unknown {
  if (isProblem(error) || !(error instanceof Error) || !('syscall' in error)) return error;
  const code = 'code' in error ? error.code : '';
  const problem =
    code === 'ENOSPC' || code === 'EDQUOT' ? 'E_SPACE' : code === 'ENOENT' ? 'E_NOT_FOUND' : 'E_IO';
  return new Problem(problem, `build ${out}: ${error.message}`, {}, { cause: error });
}
