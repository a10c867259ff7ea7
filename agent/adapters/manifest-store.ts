/**
 * The manifests of versions that this host was offered or holds, by artifact id: exactly the signed bytes, so that a
 * trial can be judged and a held version started again with no control and no bundle (docs/specs/durable-state.md,
 * section 10).
 */
import { createHash } from 'node:crypto';
import type { FilePort } from '#/agent/ports.ts';
import { MANIFEST_MAX_BYTES } from '#/bundle/manifest.ts';
import { isProblem, must } from '#/protocol/errors.ts';
import type { ArtifactId } from '#/protocol/ids.ts';
import { openDirectory, readFile, replaceFile } from './durable.ts';

export interface ManifestStore {
  /** Durable on return. */
  keep(artifact: ArtifactId, manifestBytes: Uint8Array): Promise<void>;
  /** The bytes, or null when none are kept or what is there does not have the digest any more. */
  read(artifact: ArtifactId): Promise<Uint8Array | null>;
  /** Removes all others. */
  prune(keep: readonly ArtifactId[]): Promise<void>;
}

/** The store in `directory`, made when missing. */
export async function openManifestStore(
  files: FilePort,
  directory: string,
): Promise<ManifestStore> {
  await openDirectory(files, directory);
  const pathOf = (artifact: ArtifactId): string => `${directory}/${artifact}.json`;
  const read = async (artifact: ArtifactId): Promise<Uint8Array | null> => {
    try {
      const bytes = await readFile(files, pathOf(artifact), MANIFEST_MAX_BYTES);
      return bytes !== null && sha256(bytes) === artifact ? bytes : null;
    } catch (error) {
      if (isProblem(error, 'E_STATE')) return null;
      throw error;
    }
  };
  return {
    read,
    async keep(artifact, manifestBytes) {
      must(sha256(manifestBytes) === artifact, `the manifest of ${artifact}`);
      await replaceFile(files, pathOf(artifact), manifestBytes);
    },
    async prune(keep) {
      for (const { name } of await files.list(directory)) {
        const artifact = /^([0-9a-f]{64})\.json$/.exec(name)?.[1];
        if (artifact === undefined || keep.some((kept) => kept === artifact)) continue;
        // Not synced: one that comes back after a crash is removed by the next prune.
        await files.unlink(`${directory}/${name}`);
      }
    },
  };
}

function sha256(bytes: Uint8Array): string {
  return createHash('sha256').update(bytes).digest('hex');
}
