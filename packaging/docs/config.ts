/** docs/reference/config.md, from the agent's table of settings. */
import * as v from 'valibot';
import { CONFIG_DIRECTORIES, snake } from '#/agent/config/fragments.ts';
import { settingsSchema } from '#/agent/config/schema.ts';
import { schemaWords } from './schema-words.ts';

type Entries = Readonly<Record<string, v.GenericSchema>>;

/** The page: one table per section, in the order of the schema. */
export function configPage(): string {
  const parts = ['# Configuration of the agent\n', intro];
  for (const [section, schema] of Object.entries(settingsSchema.entries as Entries)) {
    const inner = unwrapped(schema);
    const byName = recordValue(inner);
    const name = byName === null ? `[${section}]` : `[${section}.<name>]`;
    parts.push(`## ${name}\n`);
    const about = describedOf(schema);
    if (about !== '') parts.push(`${about}\n`);
    parts.push(table(entriesOf(byName ?? inner)));
  }
  return parts.join('\n');
}

function table(entries: Entries): string {
  const rows = Object.entries(entries).map(([key, schema]) => {
    const fallback = v.getDefault(schema) as unknown;
    const shown = fallback === undefined ? '-' : `\`${JSON.stringify(fallback)}\``;
    const accepted = schemaWords(unwrapped(schema), 'input')
      .replaceAll('|', '\\|')
      .replaceAll('\n', ' ');
    return `| \`${snake(key)}\` | ${accepted} | ${shown} | ${describedOf(schema).replaceAll('|', '\\|')} |`;
  });
  return `| key | accepted | default | meaning |\n| --- | --- | --- | --- |\n${rows.join('\n')}\n`;
}

/** The schema under `optional`. */
function unwrapped(schema: v.GenericSchema): v.GenericSchema {
  return 'wrapped' in schema ? unwrapped(schema.wrapped as v.GenericSchema) : schema;
}

function entriesOf(schema: v.GenericSchema): Entries {
  if ('entries' in schema) return schema.entries as Entries;
  throw new Error('a section of the settings has no keys');
}

/** For sections that are tables by name: the schema of one of them. */
function recordValue(schema: v.GenericSchema): v.GenericSchema | null {
  if (schema.type !== 'record' || !('value' in schema)) return null;
  return unwrapped(schema.value as v.GenericSchema);
}

function describedOf(schema: v.GenericSchema): string {
  return v.getDescription(unwrapped(schema)) ?? v.getDescription(schema) ?? '';
}

const intro = `Generated from \`agent/config/schema.ts\`; do not edit.

Settings are TOML files that are read in the order of their names, from ${CONFIG_DIRECTORIES.map((path) => `\`${path}\``).join(', ')}; a
file of a later directory takes the place of one of the same name in an earlier one, and a later file wins key by key. \`--config\` names one
file or directory instead. An unknown key, a wrong type or a value out of range is refused with the file and the key (E_CONFIG); the agent
does not start with half of its settings.

Durations are in milliseconds and sizes in bytes, as their names say.
`;
