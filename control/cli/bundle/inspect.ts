/** What a bundle holds, for people and scripts. Nothing is verified but what must be read. */
import { decodeEnvelope } from '#/bundle/dsse.ts';
import type { Manifest } from '#/bundle/manifest.ts';
import type { TreeEntry } from '#/bundle/tree-entry.ts';
import { openBundle } from '#/control/cli/bundle/read.ts';
import type { ArtifactId } from '#/protocol/ids.ts';

export interface PayloadSummary {
  readonly name: string;
  readonly kind: 'image' | 'tree';
  readonly sizeBytes: number;
  /** Zero bytes that are stored nowhere. */
  readonly holeBytes: number;
  readonly pieceCount: number;
  /** Null for an image. */
  readonly entries: readonly TreeEntry[] | null;
}

export interface BundleSummary {
  readonly path: string;
  readonly artifactId: ArtifactId;
  readonly manifest: Manifest;
  readonly bundleBytes: number;
  readonly keyIds: readonly string[];
  readonly attestations: readonly {
    readonly payloadType: string;
    readonly keyIds: readonly string[];
  }[];
  readonly indexBytes: number;
  readonly chunks: {
    readonly count: number;
    /** Content of the distinct chunks, and what they take in the bundle. */
    readonly rawBytes: number;
    readonly storedBytes: number;
    readonly averageBytes: number;
    readonly largestBytes: number;
  };
  readonly payloads: readonly PayloadSummary[];
}

/** Reads manifest, envelope, attestations and index of the bundle at `path`. Throws as `openBundle` does. */
export async function inspectBundle(path: string): Promise<BundleSummary> {
  await using bundle = await openBundle(path, null);
  const index = await bundle.index();
  const rawBytes = index.rawSizes.reduce((sum, size) => sum + size, 0);
  return {
    path,
    artifactId: bundle.artifactId,
    manifest: bundle.manifest,
    bundleBytes: bundle.fileBytes,
    keyIds: bundle.envelope.signatures.map((signature) => signature.keyid),
    attestations: bundle.attestations.map((line) => {
      const { payloadType, signatures } = decodeEnvelope(Buffer.from(line));
      return { payloadType, keyIds: signatures.map((signature) => signature.keyid) };
    }),
    indexBytes: bundle.located.index.sizeBytes,
    chunks: {
      count: index.chunkCount,
      rawBytes,
      storedBytes: bundle.manifest.dataBytes,
      averageBytes: index.chunkCount === 0 ? 0 : Math.round(rawBytes / index.chunkCount),
      largestBytes: index.rawSizes.reduce((max, size) => Math.max(max, size), 0),
    },
    payloads: index.payloads.map((payload, i): PayloadSummary => {
      const described = bundle.manifest.payloads[i];
      let holeBytes = 0;
      for (let piece = 0; piece < payload.pieceCount; piece += 1) {
        if (payload.chunks[piece] !== -1) continue;
        holeBytes += (payload.positions[piece + 1] ?? 0) - (payload.positions[piece] ?? 0);
      }
      return {
        name: described?.name ?? '',
        kind: payload.tree === null ? 'image' : 'tree',
        sizeBytes: described?.sizeBytes ?? 0,
        holeBytes,
        pieceCount: payload.pieceCount,
        entries: payload.tree?.entries ?? null,
      };
    }),
  };
}
