/** Files of settings: where they are, in which order they count, and how they merge. */
import { readdirSync, readFileSync, realpathSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { parse, TomlDate, TomlError } from 'smol-toml';
import type * as v from 'valibot';
import { isProblem, Problem } from '#/protocol/errors.ts';
import { settingsSchema } from './schema.ts';

/** Later directories win; files count in the order of their names, whichever directory they are in. */
export const CONFIG_DIRECTORIES = [
  '/usr/lib/switchback/config.d',
  '/etc/switchback/config.d',
  '/run/switchback/config.d',
] as const;
const FILE_MAX_BYTES = 256 * 1024;
const FILES_MAX = 256;
const DEPTH_MAX = 4;
/** Typing errors up to which a key is taken for another one that is meant. */
const TYPO_MAX = 2;

/** A value of a setting with the file that gave it. */
export interface Origin {
  readonly file: string;
}
export interface Fragment {
  readonly file: string;
  readonly text: string;
}
export type Plain = { [key: string]: unknown };
export interface Merged {
  readonly values: Plain;
  /** Dotted snake_case key → where its value stands. */
  readonly origins: ReadonlyMap<string, Origin>;
}

export const snake = (key: string): string =>
  key.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);

/**
 * Reads the drop-in files: `*.toml` of the directories, a file of a later directory in the place of one of the same name in
 * an earlier one; a link to /dev/null or an empty file takes it out. `source` replaces the directories by one file or
 * directory. Missing directories are no error, a missing `source` is E_CONFIG.
 */
export function readFragments(
  source: string | null,
  directories: readonly string[] = CONFIG_DIRECTORIES,
): readonly Fragment[] {
  if (source !== null) {
    const kind = statSync(source, { throwIfNoEntry: false });
    if (kind === undefined) throw new Problem('E_CONFIG', `${source}: no such file or directory`);
    if (!kind.isDirectory()) return [readFragment(source)];
    return readDirectories([source]);
  }
  return readDirectories(directories);
}

function readDirectories(directories: readonly string[]): readonly Fragment[] {
  const byName = new Map<string, string>();
  for (const directory of directories) {
    for (const entry of listDirectory(directory)) byName.set(entry, join(directory, entry));
  }
  if (byName.size > FILES_MAX)
    throw new Problem('E_CONFIG', `${byName.size} config files, at most ${FILES_MAX} are read`);
  return [...byName.keys()]
    .sort()
    .map((entry) => byName.get(entry) ?? '')
    .filter((file) => !isMasked(file))
    .map(readFragment);
}

function listDirectory(directory: string): readonly string[] {
  try {
    return readdirSync(directory).filter((entry) => /^[^.].*\.toml$/.test(entry));
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code === 'ENOENT') return [];
    throw new Problem('E_CONFIG', `read directory ${directory}`, { directory }, { cause });
  }
}

function isMasked(file: string): boolean {
  try {
    return realpathSync(file) === '/dev/null';
  } catch (cause) {
    throw new Problem('E_CONFIG', `${file}: link leads nowhere`, { file }, { cause });
  }
}

function readFragment(file: string): Fragment {
  try {
    const stat = statSync(file);
    if (!stat.isFile()) throw new Problem('E_CONFIG', `${file}: not a regular file`, { file });
    if (stat.size > FILE_MAX_BYTES)
      throw new Problem('E_CONFIG', `${file}: ${stat.size} bytes, at most ${FILE_MAX_BYTES}`);
    return { file, text: readFileSync(file, 'utf8') };
  } catch (cause) {
    if (isProblem(cause)) throw cause;
    throw new Problem('E_CONFIG', `read ${file}`, { file }, { cause });
  }
}

/** Parses and merges: tables key by key, everything else as a whole. An unknown key is E_CONFIG with file and key. */
export function mergeFragments(fragments: readonly Fragment[]): Merged {
  const values: Plain = {};
  const origins = new Map<string, Origin>();
  for (const { file, text } of fragments) {
    const table = parseToml(file, text);
    mergeTable(values, table, settingsSchema, [], { file }, origins);
  }
  return { values, origins };
}

function parseToml(file: string, text: string): Plain {
  try {
    return parse(text) as Plain;
  } catch (cause) {
    if (!(cause instanceof TomlError)) throw cause;
    const first = cause.message.split('\n', 1)[0] ?? '';
    throw new Problem('E_CONFIG', `${file}:${cause.line}:${cause.column}: ${first}`, { file });
  }
}

type AnySchema = v.GenericSchema | undefined;

/** The schema under the wrappers for defaults and pipes. */
export function unwrapSchema(schema: AnySchema): AnySchema {
  if (schema === undefined) return undefined;
  const inner = (schema as { wrapped?: AnySchema }).wrapped;
  if (inner !== undefined) return unwrapSchema(inner);
  return schema;
}

function mergeTable(
  into: Plain,
  table: Plain,
  schema: AnySchema,
  path: readonly string[],
  origin: Origin,
  origins: Map<string, Origin>,
): void {
  const shape = unwrapSchema(schema) as {
    type?: string;
    entries?: Record<string, AnySchema>;
    value?: AnySchema;
  };
  const known = new Map(Object.keys(shape.entries ?? {}).map((key) => [snake(key), key]));
  for (const [written, value] of Object.entries(table)) {
    const dotted = [...path, written].join('.');
    const isRecord = shape.type === 'record';
    const key = isRecord ? written : known.get(written);
    if (key === undefined || key === '__proto__') {
      throw new Problem(
        'E_CONFIG',
        `${origin.file}: unknown key ${dotted}${didYouMean(written, known)}`,
        {
          file: origin.file,
          key: dotted,
        },
      );
    }
    const child = isRecord ? shape.value : shape.entries?.[key];
    const childType = (unwrapSchema(child) as { type?: string } | undefined)?.type;
    if (isTable(value) && (childType === 'strict_object' || childType === 'record')) {
      if (path.length >= DEPTH_MAX)
        throw new Problem('E_CONFIG', `${origin.file}: ${dotted} is too deep`);
      const existing = into[key];
      const target: Plain = isTable(existing) ? existing : {};
      into[key] = target;
      origins.set(dotted, origin);
      mergeTable(target, value, child, [...path, written], origin, origins);
    } else {
      into[key] = value;
      origins.set(dotted, origin);
    }
  }
}

const isTable = (value: unknown): value is Plain =>
  typeof value === 'object' &&
  value !== null &&
  !Array.isArray(value) &&
  !(value instanceof TomlDate);

function didYouMean(written: string, known: ReadonlyMap<string, string>): string {
  const simple = (text: string): string => text.toLowerCase().replace(/[^a-z0-9]/g, '');
  const wanted = simple(written);
  for (const key of known.keys()) {
    const have = simple(key);
    const isPart = have.startsWith(wanted) || wanted.startsWith(have);
    if (isPart || distance(wanted, have) <= TYPO_MAX) return ` (did you mean ${key}?)`;
  }
  return '';
}

/** Letters to insert, leave out or change until one text is the other. */
function distance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, at) => at);
  for (let i = 0; i < a.length; i += 1) {
    const next = [i + 1];
    for (let j = 0; j < b.length; j += 1) {
      const change = (row[j] ?? 0) + (a[i] === b[j] ? 0 : 1);
      next.push(Math.min(change, (row[j + 1] ?? 0) + 1, (next[j] ?? 0) + 1));
    }
    row = next;
  }
  return row.at(-1) ?? 0;
}
