/**
 * Builds a bundle file from a directory or an image: reproducible to the byte, whatever the number of cores and whoever
 * builds it. Format: docs/specs/bundle-format.md.
 */
import type { Signer } from '#/bundle/keys.ts';
import type { Manifest } from '#/bundle/manifest.ts';
import type { Definition } from '#/control/cli/bundle/definition.ts';
import { Problem } from '#/protocol/errors.ts';
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
  throw new Problem('E_UNAVAILABLE', `building ${options.out} is not possible yet`);
}
