/** `protocol/openapi.json` from the routes: `node packaging/docs/openapi.ts`. A test compares the file with this. */
import { writeFileSync } from 'node:fs';
import { toJsonSchema } from '@valibot/to-json-schema';
import { openApi } from '#/protocol/openapi.ts';

/** The text of openapi.json. */
export function openApiText(): string {
  const document = openApi((schema) => {
    // Transformations (brands, numerals of a query) and checks by code have no form in JSON Schema: the input is described.
    const { $schema: _, ...rest } = toJsonSchema(schema, {
      errorMode: 'ignore',
      typeMode: 'input',
    });
    return rest as Record<string, unknown>;
  });
  return `${JSON.stringify(document, null, 2)}\n`;
}

if (import.meta.main)
  writeFileSync(new URL('../../protocol/openapi.json', import.meta.url), openApiText());
