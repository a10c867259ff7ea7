/**
 * What the guard needs to know, written before it can matter: where things are, and how each version is started. Plain lines
 * `key=value` for a POSIX shell, backslash and newline escaped as printf(1) %b reads them. Format: docs/specs/guard.md.
 */
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { must } from '#/protocol/errors.ts';
import type { FilePort, SlotId } from '#/agent/ports.ts';
import { makeDirectory, readFile, removeFile, replaceFile } from './durable.ts';

/** How a version is started and stopped without the agent. */
export type StartRecipe =
  | { readonly kind: 'none' }
  | { readonly kind: 'units'; readonly units: readonly string[] }
  | {
      readonly kind: 'command';
      readonly start: readonly string[];
      readonly stop: readonly string[] | null;
      readonly environment: Readonly<Record<string, string>>;
    }
  | {
      readonly kind: 'process';
      readonly start: readonly string[];
      readonly environment: Readonly<Record<string, string>>;
      readonly cwd: string;
      readonly log: string;
      readonly uid: number | null;
      readonly gid: number | null;
    };

const FILE_MAX_BYTES = 1024 * 1024;
const RECIPE = /^start\.([0-9a-f]{64}(?:\.[0-9a-f]{64})?)$/;

export interface GuardFiles {
  /** Where things are. Durable on return. */
  settle(): Promise<void>;
  /** How the version of a slot is started, and where the entries of its config set are. Durable on return; written before it is started for the first time. */
  keepRecipe(slot: SlotId, recipe: StartRecipe, configPath?: string | null): Promise<void>;
}

/** The guard's files below the state directory. */
export function guardFiles(options: {
  readonly files: FilePort;
  readonly stateDirectory: string;
  readonly runDirectory: string;
  readonly slotsRoot: string;
  readonly heartbeatLostMs: number;
  readonly slotPath: (slot: SlotId) => string;
  /** Partition hosts: what the guard has to know of slots and boot loader, as key and value. */
  readonly partitions?: () => Promise<readonly (readonly [string, string])[]>;
}): GuardFiles {
  const { files } = options;
  const directory = join(options.stateDirectory, 'guard');
  const put = async (name: string, text: string): Promise<void> => {
    const path = join(directory, name);
    const bytes = Buffer.from(text);
    const found = await readFile(files, path, FILE_MAX_BYTES).catch(() => null);
    if (found !== null && bytes.equals(found)) return;
    await replaceFile(files, path, bytes);
  };
  return {
    async settle() {
      await makeDirectory(files, directory);
      const { runDirectory, slotsRoot, heartbeatLostMs, partitions } = options;
      const lines: readonly (readonly [string, string])[] = [
        ['run', runDirectory],
        ['root', slotsRoot],
        ['lost_ms', String(heartbeatLostMs)],
        ...((await partitions?.()) ?? []),
      ];
      const text = lines.map(([key, value]) => `${key}=${escaped(value)}\n`).join('');
      await put('settings', `switchback-guard/1\n${text}`);
    },
    async keepRecipe(slot, recipe, configPath = null) {
      await put(`start.${slot}`, recipeText(recipe, configPath));
      for (const { name } of await files.list(directory)) {
        const other = RECIPE.exec(name)?.[1];
        if (other !== undefined && other !== slot && !existsSync(options.slotPath(other)))
          await removeFile(files, join(directory, name));
      }
    },
  };
}

/** The text of a recipe. */
export function recipeText(recipe: StartRecipe, configPath: string | null = null): string {
  const config = configPath === null ? [] : [['config', configPath] as const];
  return `switchback-start/1\n${[...recipeLines(recipe), ...config]
    .map(([key, value]) => `${key}=${escaped(value)}\n`)
    .join('')}`;
}

function recipeLines(recipe: StartRecipe): readonly (readonly [string, string])[] {
  const { kind } = recipe;
  if (kind === 'none') return [['kind', kind]];
  if (kind === 'units')
    return [['kind', kind], ...recipe.units.map((unit) => ['unit', unit] as const)];
  const start = commandLines('start', recipe.environment, recipe.start);
  if (kind === 'command') {
    const stop = recipe.stop === null ? [] : commandLines('stop', recipe.environment, recipe.stop);
    return [['kind', kind], ...start, ...stop];
  }
  const { cwd, log, uid, gid } = recipe;
  return [
    ['kind', kind],
    ['cwd', cwd],
    ['log', log],
    ['uid', uid === null ? '' : String(uid)],
    ['gid', gid === null ? '' : String(gid)],
    ...start,
  ];
}

/** Arguments of env(1): variables, then the program. */
function commandLines(
  key: string,
  environment: Readonly<Record<string, string>>,
  argv: readonly string[],
): readonly (readonly [string, string])[] {
  must(
    argv[0]?.includes('=') === false,
    `env(1) takes no program with "=" in its name: ${argv[0]}`,
  );
  const variables = Object.entries(environment).map(([name, value]) => `${name}=${value}`);
  return [...variables, ...argv].map((argument) => [key, argument]);
}

function escaped(text: string): string {
  must(!text.includes('\0'), 'no argument holds a NUL');
  return text.replaceAll('\\', String.raw`\\`).replaceAll('\n', String.raw`\n`);
}
