/**
 * `npm run package [-- amd64|arm64] [--twice]`: dist/deb/*.deb. Builds first. With `--twice` everything is made a second time and
 * must be the same, byte for byte.
 */
import { execFile } from 'node:child_process';
import { createHash } from 'node:crypto';
import { mkdir, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { promisify } from 'node:util';
import { epochMs, packageVersion, repositoryRoot } from './build/origin.ts';
import { agentPackage } from './deb/agent-package.ts';
import { controlPackage } from './deb/control-package.ts';
import { lockedPackages } from './deb/node-runtime.ts';
import { writeDeb } from './deb/write-deb.ts';

const out = join(repositoryRoot, 'dist/deb');
const args = process.argv.slice(2);
const chosen = (['amd64', 'arm64'] as const).filter((name) => args.includes(name));
const architectures = chosen.length > 0 ? chosen : (['amd64', 'arm64'] as const);

/** Name → sha256 of what was made. */
async function makeAll(): Promise<ReadonlyMap<string, string>> {
  await promisify(execFile)(process.execPath, [join(repositoryRoot, 'packaging/build.ts')]);
  await mkdir(out, { recursive: true });
  const version = await packageVersion();
  const epochS = Math.floor((await epochMs()) / 1000);
  const locked = await lockedPackages();
  const made = new Map<string, string>();
  for (const architecture of architectures)
    for (const make of [agentPackage, controlPackage]) {
      const deb = await make({ version, epochS, architecture, locked });
      const path = await writeDeb(deb, out);
      made.set(
        basename(path),
        createHash('sha256')
          .update(await readFile(path))
          .digest('hex'),
      );
    }
  return made;
}

const first = await makeAll();
let differing: readonly string[] = [];
if (args.includes('--twice')) {
  await rm(join(repositoryRoot, 'dist'), { recursive: true });
  const second = await makeAll();
  differing = [...first]
    .filter(([name, digest]) => second.get(name) !== digest)
    .map(([name]) => name);
}
const sums: string[] = [];
for (const [name, digest] of first) {
  sums.push(`${digest}  ${name}\n`);
  const mib = ((await stat(join(out, name))).size / 1024 / 1024).toFixed(1);
  process.stdout.write(`${name}: ${mib} MiB, sha256 ${digest}\n`);
}
await writeFile(join(out, 'SHA256SUMS'), sums.join(''));
if (args.includes('--twice'))
  process.stdout.write(
    differing.length === 0 ? 'twice the same bytes\n' : `not the same: ${differing.join(', ')}\n`,
  );
if (differing.length > 0) process.exitCode = 1;
