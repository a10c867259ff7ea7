/**
 * The deny-list: artifacts that this host rolled back and does not try again on its own (I7, F55). It survives rollbacks,
 * new agents and a lost journal. Format: docs/specs/durable-state.md, section 7.
 */
import * as v from 'valibot';
import type { DenyEntry } from '#/agent/core/effect.ts';
import type { FilePort } from '#/agent/ports.ts';
import { errors, type ErrorCode } from '#/protocol/errors.ts';
import { versionId, type VersionId } from '#/protocol/ids.ts';
import { stateFile, type StateFormat } from './state-file.ts';

/** Beyond this the entry that was denied longest ago goes; control remembers its failed rollouts too. */
export const MAX_DENIED = 256;

const count = v.pipe(v.number(), v.safeInteger(), v.minValue(0));
const format: StateFormat<readonly DenyEntry[]> = {
  kind: 'denylist',
  version: 1,
  limitBytes: 1024 * 1024,
  schema: v.pipe(
    v.array(
      v.object({
        artifactId: versionId,
        code: v.custom<ErrorCode>((input) => typeof input === 'string' && input in errors),
        message: v.pipe(v.string(), v.maxLength(4096)),
        retryGeneration: count,
        count,
        atWallMs: v.pipe(v.number(), v.safeInteger()),
      }),
    ),
    v.maxLength(MAX_DENIED),
  ),
};

export interface DenyList {
  /** The entry denied longest ago first. */
  entries(): readonly DenyEntry[];
  /** Adds the entry, or replaces the one of its artifact; durable on return. */
  put(entry: DenyEntry): Promise<void>;
  /** Removes the entry of an artifact; durable on return. None is fine. */
  remove(artifact: VersionId): Promise<void>;
}

/** Reads the deny-list at `path`. E_STATE when it is damaged. */
export async function openDenyList(files: FilePort, path: string): Promise<DenyList> {
  const file = stateFile(files, path, format);
  let entries = (await file.read()) ?? [];
  const save = async (next: readonly DenyEntry[]): Promise<void> => {
    await file.write(next);
    entries = next;
  };
  const others = (artifact: VersionId): readonly DenyEntry[] =>
    entries.filter((entry) => entry.artifactId !== artifact);
  return {
    entries: () => entries,
    async put(entry) {
      // Written even when it is there already: an earlier write may have failed after its rename.
      await save([...others(entry.artifactId), entry].slice(-MAX_DENIED));
    },
    async remove(artifact) {
      await save(others(artifact));
    },
  };
}
