/** Slot records: `<state>/slots/<slot>.json`, what is known about the content of a slot. Format: docs/specs/slot-layout.md. */
import { crc32 } from 'node:zlib';
import * as v from 'valibot';
import type { FilePort, SlotRecord } from '#/agent/ports.ts';
import { canonicalDocument } from '#/bundle/canonical.ts';
import { parseStrictJson } from '#/bundle/strict-json.ts';
import { isProblem } from '#/protocol/errors.ts';
import { versionId } from '#/protocol/ids.ts';
import { makeDirectory, readFile, removeFile, replaceFile } from './durable.ts';

const RECORD_MAX_BYTES = 8 * 1024;
/** More records than this are not read: prune keeps a handful. */
const RECORDS_MAX = 1024;
const REASON_MAX_CHARS = 1024;
/** 2: with a checksum. One flipped bit of `status` can be another status that reads well. */
const SCHEMA = 'switchback.slot/2';

const recordSchema = v.strictObject({
  schema: v.literal(SCHEMA),
  crc32: v.string(),
  slot: v.pipe(v.string(), v.minLength(1), v.maxLength(129)),
  status: v.picklist(['empty', 'writing', 'written', 'verified', 'trial', 'good', 'bad']),
  artifactId: v.nullable(versionId),
  version: v.nullable(v.pipe(v.string(), v.maxLength(64))),
  release: v.nullable(v.pipe(v.number(), v.safeInteger(), v.minValue(0))),
  reason: v.nullable(v.pipe(v.string(), v.maxLength(REASON_MAX_CHARS))),
});

export interface SlotRecords {
  /** Null when there is none or it is unreadable: then what is really there decides. */
  read(slot: string): Promise<SlotRecord | null>;
  list(): Promise<readonly SlotRecord[]>;
  /** Durable on return. */
  write(record: SlotRecord): Promise<void>;
  remove(slot: string): Promise<void>;
}

/** crc32 of the canonical record alone, 8 hex digits. */
function checksumOf({
  slot,
  status,
  artifactId: artifact,
  version,
  release,
  reason,
}: SlotRecord): string {
  const record = { slot, status, artifactId: artifact, version, release, reason };
  return crc32(canonicalDocument(record)).toString(16).padStart(8, '0');
}

/** Records in `<stateDirectory>/slots`. Slot names are checked by the caller; they become file names. */
export function slotRecords(files: FilePort, stateDirectory: string): SlotRecords {
  const directory = `${stateDirectory}/slots`;
  const pathOf = (slot: string): string => `${directory}/${slot}.json`;
  const read = async (slot: string): Promise<SlotRecord | null> => {
    try {
      const bytes = await readFile(files, pathOf(slot), RECORD_MAX_BYTES);
      if (bytes === null) return null;
      const json = parseStrictJson(bytes, { maxBytes: RECORD_MAX_BYTES });
      const { schema: _schema, crc32: sum, ...record } = v.parse(recordSchema, json);
      return record.slot === slot && sum === checksumOf(record) ? record : null;
    } catch (error) {
      // A damaged record says nothing; the slot itself does. It is written anew at the next change of status.
      const damaged = isProblem(error, 'E_STATE', 'E_PARSE', 'E_CANON', 'E_TOOBIG');
      if (damaged || error instanceof v.ValiError) return null;
      throw error;
    }
  };
  return {
    read,
    async list() {
      if ((await files.stat(directory)) === null) return [];
      const names = (await files.list(directory))
        .filter((entry) => entry.kind === 'file' && /^[^.].*\.json$/.test(entry.name))
        .slice(0, RECORDS_MAX);
      const records: SlotRecord[] = [];
      for (const { name } of names) {
        const record = await read(name.slice(0, -'.json'.length));
        if (record !== null) records.push(record);
      }
      return records;
    },
    async write(record) {
      await makeDirectory(files, stateDirectory);
      await makeDirectory(files, directory);
      const reason = record.reason === null ? null : record.reason.slice(0, REASON_MAX_CHARS);
      const kept = { ...record, reason };
      const document = { schema: SCHEMA, crc32: checksumOf(kept), ...kept };
      await replaceFile(files, pathOf(record.slot), canonicalDocument(document));
    },
    async remove(slot) {
      if ((await files.stat(directory)) === null) return;
      await removeFile(files, pathOf(slot));
    },
  };
}
