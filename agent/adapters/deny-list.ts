/**
 * The deny-list: artifacts that this host rolled back and does not try again on its own (I7, F55). It survives rollbacks
 * and new agents. Format: docs/specs/durable-state.md, section 7.
 */
import * as v from 'valibot';
import { artifactId, type ArtifactId } from '#/protocol/ids.ts';
import type { FilePort } from '#/agent/ports.ts';
import { stateFile, type StateFormat } from './state-file.ts';

/** Beyond this the entry that was denied longest ago goes; control remembers its failed rollouts too. */
export const MAX_DENIED = 256;

const entry = v.object({
  artifactId,
  code: v.pipe(v.string(), v.maxLength(64)),
  /** What was seen, for people. */
  reason: v.pipe(v.string(), v.maxLength(1024)),
  /** How often it was denied. */
  count: v.pipe(v.number(), v.safeInteger(), v.minValue(1)),
  /** An offer with a higher retry generation clears the entry. */
  retryGeneration: v.pipe(v.number(), v.safeInteger(), v.minValue(0)),
  /** Host clock, milliseconds since 1970. */
  at: v.pipe(v.number(), v.safeInteger()),
});
export type DeniedEntry = v.InferOutput<typeof entry>;

const format: StateFormat<readonly DeniedEntry[]> = {
  kind: 'denylist',
  version: 1,
  limitBytes: 1024 * 1024,
  schema: v.pipe(v.array(entry), v.maxLength(MAX_DENIED)),
};

export interface DenyList {
  /** Oldest first. */
  entries(): readonly DeniedEntry[];
  find(artifact: ArtifactId): DeniedEntry | null;
  /** Adds or renews the entry of `denied.artifactId`; durable on return. Repeating the same call changes nothing. */
  deny(denied: Omit<DeniedEntry, 'count'>): Promise<void>;
  /** Removes the entry; durable on return. */
  clear(artifact: ArtifactId): Promise<void>;
}

/** Reads the deny-list at `path`. E_STATE when it is damaged. */
export async function openDenyList(files: FilePort, path: string): Promise<DenyList> {
  const file = stateFile(files, path, format);
  let entries = (await file.read()) ?? [];
  const find = (artifact: ArtifactId): DeniedEntry | null =>
    entries.find((candidate) => candidate.artifactId === artifact) ?? null;
  const save = async (next: readonly DeniedEntry[]): Promise<void> => {
    await file.write(next);
    entries = next;
  };
  return {
    entries: () => entries,
    find,
    async deny(denied) {
      const before = find(denied.artifactId);
      if (before !== null && before.at === denied.at && before.code === denied.code) return;
      const others = entries.filter((other) => other.artifactId !== denied.artifactId);
      const next = [...others, { ...denied, count: (before?.count ?? 0) + 1 }];
      await save(next.slice(-MAX_DENIED));
    },
    async clear(artifact) {
      if (find(artifact) === null) return;
      await save(entries.filter((other) => other.artifactId !== artifact));
    },
  };
}
