/** Slot records: `slots/<slot>.json`, one state file per slot (docs/specs/durable-state.md, section 6). */
import * as v from 'valibot';
import { isProblem, must } from '#/protocol/errors.ts';
import { artifactId } from '#/protocol/ids.ts';
import type { FilePort, SlotId, SlotRecord } from '#/agent/ports.ts';
import { makeDirectory, removeFile, removeTemporaries } from './durable.ts';
import { stateFile, type StateFile, type StateFormat } from './state-file.ts';

const MAX_RECORD_BYTES = 16 * 1024;
/** Directories are pruned to a handful; more than this means someone else writes here. */
const MAX_RECORDS = 256;

const format: StateFormat<SlotRecord> = {
  kind: 'slot',
  version: 1,
  limitBytes: MAX_RECORD_BYTES,
  schema: v.object({
    slot: v.string(),
    status: v.picklist(['empty', 'writing', 'written', 'verified', 'trial', 'good', 'bad']),
    artifactId: v.nullable(artifactId),
    version: v.nullable(v.string()),
    release: v.nullable(v.pipe(v.number(), v.safeInteger())),
    reason: v.nullable(v.pipe(v.string(), v.maxLength(4096))),
  }),
};

export interface SlotRecords {
  /** The record, null when there is none, 'damaged' when it is unreadable: the slot must be verified anew. */
  get(slot: SlotId): Promise<SlotRecord | 'damaged' | null>;
  /** All readable records, by slot name, and the slots whose record is damaged. */
  list(): Promise<{ readonly records: readonly SlotRecord[]; readonly damaged: readonly SlotId[] }>;
  /** Durable on return. */
  put(record: SlotRecord): Promise<void>;
  remove(slot: SlotId): Promise<void>;
}

/** The records in `directory` (made when missing; leftovers of a crash are removed). */
export async function openSlotRecords(files: FilePort, directory: string): Promise<SlotRecords> {
  await makeDirectory(files, directory);
  await removeTemporaries(files, directory);
  const fileOf = (slot: SlotId): StateFile<SlotRecord> =>
    stateFile(files, pathOf(directory, slot), format);
  const get = async (slot: SlotId): Promise<SlotRecord | 'damaged' | null> => {
    try {
      const record = await fileOf(slot).read();
      return record === null || record.slot === slot ? record : 'damaged';
    } catch (error) {
      if (isProblem(error, 'E_STATE')) return 'damaged';
      throw error;
    }
  };
  return {
    get,
    async list() {
      const records: SlotRecord[] = [];
      const damaged: SlotId[] = [];
      for (const entry of (await files.list(directory)).slice(0, MAX_RECORDS)) {
        const slot = /^([0-9a-z][0-9a-z-]{0,127})\.json$/.exec(entry.name)?.[1];
        if (slot === undefined) continue;
        const record = await get(slot);
        if (record === 'damaged') damaged.push(slot);
        else if (record !== null) records.push(record);
      }
      return { records, damaged };
    },
    put: (record) => fileOf(record.slot).write(record),
    remove: (slot) => removeFile(files, pathOf(directory, slot)),
  };
}

function pathOf(directory: string, slot: SlotId): string {
  must(/^[0-9a-z][0-9a-z-]{0,127}$/.test(slot), `a slot id: ${slot}`);
  return `${directory}/${slot}.json`;
}
