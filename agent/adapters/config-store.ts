/**
 * Config sets of versions that this host was offered or holds: `configs/<version id>.json` in the state directory. Everything
 * secret in them is as it came, encrypted; what opens it is the identity of the host. docs/specs/config-sets.md, section 4.
 */
import type { FilePort, OfferedConfig } from '#/agent/ports.ts';
import { bytesOfBase64, base64Of } from '#/bundle/base64.ts';
import { sha256 } from '#/bundle/keys.ts';
import { isProblem, must } from '#/protocol/errors.ts';
import { type ConfigId, configOf, isVersionId, type VersionId } from '#/protocol/ids.ts';
import * as v from 'valibot';
import { openDirectory } from './durable.ts';
import { stateFile, type StateFormat } from './state-file.ts';

const text = v.record(v.string(), v.string());
const keptConfig = v.object({ set: v.string(), boxes: text, keys: text });
const format: StateFormat<v.InferOutput<typeof keptConfig>> = {
  kind: 'config',
  version: 1,
  limitBytes: 8 * 1024 * 1024,
  schema: keptConfig,
};

export interface ConfigStore {
  /** Durable on return. */
  keep(version: VersionId, config: OfferedConfig): Promise<void>;
  /** Null when none is kept, or what is there does not have the digest any more. */
  read(version: VersionId): Promise<OfferedConfig | null>;
  /** Versions of which one is kept. */
  list(): Promise<readonly VersionId[]>;
  prune(keep: readonly VersionId[]): Promise<void>;
}

/** The store in `directory`, which is made when the first config set is kept. */
export function configStore(files: FilePort, directory: string): ConfigStore {
  const fileOf = (version: VersionId) => stateFile(files, `${directory}/${version}.json`, format);
  const list = async (): Promise<readonly VersionId[]> => {
    if ((await files.stat(directory)) === null) return [];
    const names = (await files.list(directory)).map(({ name }) => name.replace(/\.json$/, ''));
    return names.filter(isVersionId);
  };
  return {
    async keep(version, { configId, setBytes, boxes, keys }) {
      must(configOf(version) === configId && sha256(setBytes) === configId, `config of ${version}`);
      await openDirectory(files, directory);
      await fileOf(version).write({
        set: base64Of(setBytes),
        boxes: { ...boxes },
        keys: { ...keys },
      });
    },
    async read(version) {
      try {
        const kept = await fileOf(version).read();
        const setBytes = kept === null ? null : bytesOfBase64(kept.set);
        if (kept === null || setBytes === null) return null;
        const configId = sha256(setBytes) as ConfigId;
        if (configId !== configOf(version)) return null;
        return { configId, setBytes, boxes: kept.boxes, keys: kept.keys };
      } catch (error) {
        if (isProblem(error, 'E_STATE')) return null;
        throw error;
      }
    },
    list,
    async prune(keep) {
      for (const version of await list()) {
        // Not synced: one that comes back after a crash is removed by the next prune.
        if (!keep.includes(version)) await files.unlink(`${directory}/${version}.json`);
      }
    },
  };
}
