/** Values that a schema accepts, so that damage to them gets past its first field. */
import * as v from 'valibot';
import type { JsonValue } from '#/protocol/errors.ts';

const HEX = '0123456789abcdef'.repeat(8);
/** One of them fits every text of the protocol; a schema that none fits fails the test of the targets. */
const TEXTS = [
  'web',
  'a text',
  HEX.slice(0, 64),
  HEX.slice(0, 32),
  HEX.slice(0, 16),
  `h-${HEX.slice(0, 32)}`,
  `r-${HEX.slice(0, 32)}`,
  `${HEX.slice(0, 64)}.${HEX.slice(0, 64)}`,
  `sbj_${'t'.repeat(22)}`,
  '1.2.0',
  'https://mirror.example/a.bundle',
  '2026-11-25T00:00:00Z',
  'role=web,zone!=a',
  '100',
  'AAAA',
  '{}',
  'amd64',
  '/a/b',
];
const NUMBERS = [1, 0, 60, 1000, 3600, 1_700_000_000_000];
const SAMPLES_MAX = 12;
const DEPTH_MAX = 12;

type Schema = v.GenericSchema & {
  readonly entries?: Readonly<Record<string, Schema>>;
  readonly items?: readonly Schema[];
  readonly item?: Schema;
  readonly key?: Schema;
  readonly value?: Schema;
  readonly wrapped?: Schema;
  readonly options?: readonly (Schema | JsonValue)[];
  readonly literal?: JsonValue;
  readonly getter?: (input: unknown) => Schema;
};

/** Up to twelve different values of the schema; empty where none was found. */
export function samplesOf(schema: v.GenericSchema): readonly JsonValue[] {
  const found = of(schema as Schema, 0).filter((value) => v.safeParse(schema, value).success);
  return found.slice(0, SAMPLES_MAX);
}

function of(schema: Schema, depth: number): readonly JsonValue[] {
  if (depth > DEPTH_MAX) return [];
  const fitting = (values: readonly JsonValue[]): readonly JsonValue[] =>
    values.filter((value) => v.safeParse(schema, value).success);
  const inside = (inner: Schema | undefined): readonly JsonValue[] =>
    inner === undefined ? [] : of(inner, depth + 1);
  switch (schema.type) {
    case 'string':
      return fitting(TEXTS).slice(0, 2);
    case 'number':
      return fitting(NUMBERS).slice(0, 2);
    case 'boolean':
      return [true, false];
    case 'null':
      return [null];
    case 'literal':
      return schema.literal === undefined ? [] : [schema.literal];
    case 'picklist':
    case 'enum':
      return (schema.options ?? []) as readonly JsonValue[];
    case 'any':
    case 'unknown':
      return ['x', { a: [1, null] }];
    case 'nullable':
    case 'nullish':
      return [...inside(schema.wrapped), null];
    case 'optional':
    case 'exact_optional':
      return inside(schema.wrapped);
    case 'union':
    case 'variant':
      return (schema.options ?? []).flatMap((option) => inside(option as Schema).slice(0, 2));
    case 'lazy':
      return inside(schema.getter?.(undefined));
    case 'array':
      return fitting([inside(schema.item).slice(0, 1), inside(schema.item).slice(0, 3), []]);
    case 'tuple':
    case 'strict_tuple':
      return [(schema.items ?? []).map((item) => inside(item)[0] ?? null)];
    case 'record': {
      const [value] = inside(schema.value);
      if (value === undefined) return [{}];
      return [Object.fromEntries(inside(schema.key).map((key) => [String(key), value])), {}];
    }
    case 'object':
    case 'strict_object':
    case 'loose_object':
      return objects(schema.entries ?? {}, inside);
    default:
      return [];
  }
}

/** Everything that may be there, and each field in each of its forms. */
function objects(
  entries: Readonly<Record<string, Schema>>,
  inside: (schema: Schema) => readonly JsonValue[],
): readonly JsonValue[] {
  const values = Object.entries(entries).map(([name, schema]) => [name, inside(schema)] as const);
  const whole = Object.fromEntries(
    values.flatMap(([name, [first]]) => (first === undefined ? [] : [[name, first]])),
  );
  const others = values.flatMap(([name, [, ...rest]]) =>
    rest.map((value) => ({ ...whole, [name]: value })),
  );
  const least = Object.fromEntries(
    values.flatMap(([name, [first]]) =>
      first === undefined || entries[name]?.type === 'optional' ? [] : [[name, first]],
    ),
  );
  return [whole, least, ...others];
}
