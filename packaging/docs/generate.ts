/** `npm run gen`: writes the generated files. Run it after a change of errors, routes, commands, settings or test titles. */
import { mkdir, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { readTree } from '#/test/tidy/tree.ts';
import { generatedFiles } from './generated.ts';

const root = fileURLToPath(new URL('../..', import.meta.url));
for (const [path, content] of await generatedFiles(await readTree(root))) {
  await mkdir(dirname(join(root, path)), { recursive: true });
  await writeFile(join(root, path), content);
  process.stdout.write(`${path}\n`);
}
