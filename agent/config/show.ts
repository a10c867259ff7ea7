/** The settings in force as rows of key, value and origin. */
import type { LoadedSettings } from '#/agent/config.ts';
import { snake } from './fragments.ts';

export interface ShownSetting {
  readonly key: string;
  readonly value: unknown;
  /** The file it stands in; null: the default. */
  readonly file: string | null;
}

/** All values, in the order of the reference page. */
export function fieldsOf(loaded: LoadedSettings): readonly ShownSetting[] {
  return walk(loaded.settings, [], loaded);
}

function walk(
  value: unknown,
  path: readonly string[],
  loaded: LoadedSettings,
): readonly ShownSetting[] {
  if (typeof value === 'object' && value !== null && !Array.isArray(value)) {
    return Object.entries(value).flatMap(([key, inner]) =>
      walk(inner, [...path, segment(path, key)], loaded),
    );
  }
  const key = path.join('.');
  return [{ key, value, file: loaded.origins.get(key)?.file ?? null }];
}

/** Names that people chose and variables of the environment stay as they are. */
function segment(path: readonly string[], key: string): string {
  const isChosen =
    path.at(-1) === 'environment' ||
    (path.length === 1 && ['window', 'check'].includes(path[0] ?? ''));
  return isChosen ? key : snake(key);
}

/** As TOML with one key a line, comments say the origin. */
export function showRows(loaded: LoadedSettings, withOrigin: boolean): string {
  return fieldsOf(loaded)
    .map(({ key, value, file }) => {
      const origin = withOrigin ? `  # ${file ?? 'default'}` : '';
      return `${key} = ${JSON.stringify(value)}${origin}\n`;
    })
    .join('');
}
