/** Installs two bundles one after the other and removes the first: for tests that run it as another user. */
import { rm } from 'node:fs/promises';
import { pathToFileURL } from 'node:url';
import { makeHost } from '#/test/support/install/host.ts';
import { openBundleFile } from '#/test/support/install/open-bundle-file.ts';

const [root = '', ...bundles] = process.argv.slice(2);
const host = await makeHost(root, { run: 'child' });
for (const path of bundles) {
  await host.install(await openBundleFile(path, [pathToFileURL(path).href]));
}
// Without the link the first version is not in use any more.
await rm(host.layout.previous);
await host.slots.prune([]);
const { slots } = await host.slots.observe();
process.stdout.write(JSON.stringify({ uid: process.getuid?.(), slots: slots.length }));
