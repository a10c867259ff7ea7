/**
 * A state file: one value, replaced as a whole, with its kind, format version, length and crc32 in the first line, so
 * that rot and foreign files are told from state. Format: docs/specs/durable-state.md, section 3.
 *
 *     switchback.<kind>/<version> <crc32, 8 hex digits> <length>\n<JSON>\n
 */
import { crc32 } from 'node:zlib';
import * as v from 'valibot';
import { Problem } from '#/protocol/errors.ts';
import type { FilePort } from '#/agent/ports.ts';
import { readFile, removeFile, replaceFile } from './durable.ts';

export interface StateFormat<T> {
  readonly kind: string;
  /** Grows only when an older agent could misread the content; new fields alone do not raise it (F66). */
  readonly version: number;
  readonly schema: v.GenericSchema<unknown, T>;
  readonly limitBytes: number;
}

export interface StateFile<T> {
  /** The value, or null when there is none. E_STATE: the file is damaged, foreign or of a newer version. */
  read(): Promise<T | null>;
  /** Durable on return. */
  write(value: T): Promise<void>;
  remove(): Promise<void>;
}

/** The bytes of a state file. */
export function encodeState<T>(format: StateFormat<T>, value: T): Uint8Array {
  const json = Buffer.from(JSON.stringify(value));
  const header = `switchback.${format.kind}/${format.version} ${hex32(crc32(json))} ${json.byteLength}\n`;
  const bytes = Buffer.concat([Buffer.from(header), json, Buffer.from('\n')]);
  if (bytes.byteLength > format.limitBytes) {
    throw new Problem('E_STATE', `${format.kind}: ${bytes.byteLength} bytes are over the limit`, {
      limitBytes: format.limitBytes,
    });
  }
  return bytes;
}

/** The value in the bytes of a state file, or E_STATE with what is wrong. */
export function decodeState<T>(format: StateFormat<T>, path: string, bytes: Uint8Array): T {
  const damaged = (what: string, cause?: unknown): Problem =>
    new Problem('E_STATE', `${path}: ${what}`, { path }, { cause });
  const newline = bytes.indexOf(10);
  const header = Buffer.from(bytes.subarray(0, Math.max(newline, 0))).toString('latin1');
  const match = /^switchback\.([a-z-]+)\/([0-9]{1,6}) ([0-9a-f]{8}) ([0-9]{1,12})$/.exec(header);
  if (match === null) throw damaged('no header');
  const [, kind, version, crc, length] = match;
  if (kind !== format.kind) throw damaged(`holds a ${kind}, not a ${format.kind}`);
  if (Number(version) > format.version)
    throw damaged(`version ${version} is newer than this agent`);
  const body = bytes.subarray(newline + 1, newline + 1 + Number(length));
  const isWhole = bytes.byteLength === newline + 2 + Number(length) && bytes.at(-1) === 10;
  if (!isWhole) {
    throw damaged(`${bytes.byteLength} bytes, the header says ${length}`);
  }
  if (hex32(crc32(body)) !== crc) throw damaged('checksum differs');
  let json: unknown;
  try {
    json = JSON.parse(Buffer.from(body).toString('utf8'));
  } catch (error) {
    throw damaged('not JSON', error);
  }
  const parsed = v.safeParse(format.schema, json);
  if (!parsed.success) throw damaged(`unexpected content: ${parsed.issues[0].message}`);
  return parsed.output;
}

/** A state file at `path`; its directory exists. */
export function stateFile<T>(files: FilePort, path: string, format: StateFormat<T>): StateFile<T> {
  return {
    async read() {
      const bytes = await readFile(files, path, format.limitBytes);
      return bytes === null ? null : decodeState(format, path, bytes);
    },
    async write(value) {
      await replaceFile(files, path, encodeState(format, value));
    },
    remove: () => removeFile(files, path),
  };
}

/** 8 lower-case hex digits. */
export function hex32(value: number): string {
  return (value >>> 0).toString(16).padStart(8, '0');
}
