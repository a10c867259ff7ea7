/** A valibot schema as a short text that people can read: `{ name: string, size?: integer >= 0 }`. */
import { toJsonSchema } from '@valibot/to-json-schema';
import type { Schema } from '#/protocol/api.ts';

interface Json {
  readonly [key: string]: unknown;
}

/** The shape of what `schema` accepts, on one line or, when that is long, one line per field. */
export function schemaWords(schema: Schema, mode: 'input' | 'output'): string {
  const json = toJsonSchema(schema, { errorMode: 'ignore', typeMode: mode }) as Json;
  return print(json, '');
}

function print(json: Json, indent: string): string {
  if (Array.isArray(json['anyOf']) || Array.isArray(json['oneOf'])) {
    const options = (json['anyOf'] ?? json['oneOf']) as Json[];
    return [...new Set(options.map((option) => print(option, indent)))].join(' | ');
  }
  if (Array.isArray(json['allOf'])) {
    return (json['allOf'] as Json[]).map((part) => print(part, indent)).join(' & ');
  }
  if ('const' in json) return JSON.stringify(json['const']);
  if (Array.isArray(json['enum']))
    return json['enum'].map((value) => JSON.stringify(value)).join(' | ');
  switch (json['type']) {
    case 'object':
      return object(json, indent);
    case 'array':
      return `[${print((json['items'] ?? {}) as Json, indent)}]`;
    case 'string':
      return bounded(
        'string',
        json['minLength'] === 1 ? undefined : json['minLength'],
        json['maxLength'],
        ' characters',
      );
    case 'number':
    case 'integer':
      return bounded(String(json['type']), json['minimum'], json['maximum'], '');
    case 'boolean':
    case 'null':
      return json['type'];
    default:
      return 'any';
  }
}

function bounded(word: string, min: unknown, max: unknown, unit: string): string {
  const big = Number.MAX_SAFE_INTEGER;
  const isBounded = typeof max === 'number' && max < big;
  if (typeof min === 'number' && min > 0 && isBounded) return `${word} (${min} to ${max}${unit})`;
  if (isBounded) return `${word} (at most ${max}${unit})`;
  return typeof min === 'number' && min > -big ? `${word} (at least ${min}${unit})` : word;
}

const LINE = 100;

function object(json: Json, indent: string): string {
  const properties = Object.entries((json['properties'] ?? {}) as Record<string, Json>);
  const required = new Set((json['required'] ?? []) as string[]);
  if (properties.length === 0) {
    const values = json['additionalProperties'];
    return typeof values === 'object' && values !== null
      ? `{ [key]: ${print(values as Json, indent)} }`
      : '{}';
  }
  const inner = `${indent}  `;
  const fields = properties.map(([name, value]) => {
    const fallback = 'default' in value ? ` = ${JSON.stringify(value['default'])}` : '';
    return `${name}${required.has(name) ? '' : '?'}: ${print(value, inner)}${fallback}`;
  });
  const flat = `{ ${fields.join(', ')} }`;
  if (flat.length + indent.length <= LINE && !flat.includes('\n')) return flat;
  return `{\n${fields.map((field) => `${inner}${field},\n`).join('')}${indent}}`;
}
