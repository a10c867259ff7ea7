/** The reference page of the settings, from the table itself. */
import type * as v from 'valibot';
import { CONFIG_DIRECTORIES, snake, unwrapSchema } from './fragments.ts';
import { settingsSchema } from './schema.ts';

interface Shape {
  readonly type: string;
  readonly entries?: Readonly<Record<string, Shape>>;
  readonly value?: Shape;
  readonly item?: Shape;
  readonly wrapped?: Shape;
  readonly default?: unknown;
  readonly options?: readonly unknown[];
  readonly pipe?: readonly {
    readonly type: string;
    readonly requirement?: unknown;
    readonly description?: string;
    readonly message?: unknown;
  }[];
}

const shapeOf = (schema: unknown): Shape => schema as Shape;

/** `docs/reference/config.md`. */
export function configReference(): string {
  const sections = Object.entries(shapeOf(settingsSchema).entries ?? {});
  return [
    '# Settings of the agent\n',
    'Generated from `agent/config/schema.ts`. Files are TOML: `*.toml` in',
    `${CONFIG_DIRECTORIES.map((directory) => `\`${directory}\``).join(', ')}, read in the order of their names;`,
    'a file of a later directory takes the place of one of the same name in an earlier one, and a link to `/dev/null` takes it',
    'out. Tables merge key by key, everything else as a whole. An unknown key is refused with its file. `--config FILE|DIR`',
    'replaces the three directories.\n',
    '`switchback-agent config check` checks, `switchback-agent config show --origin` shows what is in force and from where.\n',
    ...sections.map(([section, schema]) => sectionText(section, schema)),
  ].join('\n');
}

function sectionText(section: string, schema: Shape): string {
  const inner = shapeOf(unwrapSchema(schema as unknown as v.GenericSchema));
  const isRecord = inner.type === 'record';
  const rows = Object.entries(
    (isRecord ? shapeOf(unwrapSchema(inner.value as unknown as v.GenericSchema)) : inner).entries ??
      {},
  );
  return [
    `## \`[${snake(section)}${isRecord ? '.NAME' : ''}]\`\n`,
    ...(descriptionOf(schema) === '' ? [] : [`${descriptionOf(schema)}\n`]),
    '| Key | Type | Default | Meaning |',
    '|---|---|---|---|',
    ...rows.map(
      ([key, row]) =>
        `| \`${snake(key)}\` | ${typeText(row)} | ${defaultText(row)} | ${descriptionOf(row)} |`,
    ),
    '',
  ].join('\n');
}

function descriptionOf(schema: Shape): string {
  const own = schema.pipe?.find((item) => item.type === 'description')?.description;
  return own ?? (schema.wrapped === undefined ? '' : descriptionOf(schema.wrapped));
}

function defaultText(schema: Shape): string {
  if (schema.type !== 'optional') return 'required';
  if (schema.default === undefined) return '';
  return `\`${JSON.stringify(schema.default)}\``;
}

function typeText(schema: Shape): string {
  const inner = schema.wrapped === undefined ? schema : schema.wrapped;
  const requirement = (type: string): unknown => requirementOf(inner, type);
  switch (inner.type) {
    case 'picklist':
      return (inner.options ?? []).map((option) => `\`"${String(option)}"\``).join(', ');
    case 'number':
      return `whole number, ${String(requirement('min_value') ?? '')} to ${String(requirement('max_value') ?? '')}`;
    case 'array':
      return 'list of texts';
    case 'record':
      return 'table of texts';
    case 'boolean':
      return 'true or false';
    default:
      return 'text';
  }
}

/** Pipes stand inside pipes: the first item of one is the schema that the rest refines. */
function requirementOf(schema: Shape, type: string): unknown {
  for (const item of schema.pipe ?? []) {
    if (item.type === type) return item.requirement;
    const inner = item as unknown as Shape;
    if (inner !== schema && inner.pipe !== undefined && inner.pipe[0] !== item) {
      const found = requirementOf(inner, type);
      if (found !== undefined) return found;
    }
  }
  return undefined;
}
