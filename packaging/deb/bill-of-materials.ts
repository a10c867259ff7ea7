/** What a package is made of, as CycloneDX 1.5: the npm packages that the build took in, and Node. */
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import * as v from 'valibot';
import { repositoryRoot } from '#/packaging/build/origin.ts';
import type { LockedPackages } from './node-runtime.ts';

const inputsFile = v.record(v.string(), v.array(v.string()));

/** The npm packages that the build took into these programs, sorted. */
export async function packagesIn(programs: readonly string[]): Promise<readonly string[]> {
  const text = await readFile(join(repositoryRoot, 'dist/inputs.json'), 'utf8');
  const inputs = v.parse(inputsFile, JSON.parse(text));
  return [...new Set(programs.flatMap((program) => inputs[program] ?? []))].sort();
}

/** The document. Without a serial number and with the time of the sources, so that it is the same in each build. */
export function billOfMaterials(options: {
  readonly name: string;
  readonly version: string;
  readonly epochS: number;
  readonly packages: readonly string[];
  readonly nodeVersion: string;
  readonly locked: LockedPackages;
}): string {
  const components = options.packages.map((name) => {
    const { version = '', integrity = '', license } = options.locked[`node_modules/${name}`] ?? {};
    const content = Buffer.from(integrity.replace(/^sha512-/, ''), 'base64').toString('hex');
    return {
      type: 'library',
      'bom-ref': `pkg:npm/${name.replace('@', '%40')}@${version}`,
      name,
      version,
      purl: `pkg:npm/${name.replace('@', '%40')}@${version}`,
      hashes: [{ alg: 'SHA-512', content }],
      ...(license === undefined ? {} : { licenses: [{ expression: license }] }),
    };
  });
  const document = {
    bomFormat: 'CycloneDX',
    specVersion: '1.5',
    version: 1,
    metadata: {
      timestamp: new Date(options.epochS * 1000).toISOString(),
      component: {
        type: 'application',
        name: options.name,
        version: options.version,
        licenses: [{ expression: 'Apache-2.0' }],
      },
    },
    components: [
      ...components,
      {
        type: 'platform',
        'bom-ref': `pkg:generic/node@${options.nodeVersion}`,
        name: 'node',
        version: options.nodeVersion,
        purl: `pkg:generic/node@${options.nodeVersion}`,
      },
    ],
  };
  return `${JSON.stringify(document, null, 1)}\n`;
}

/** The texts of the licences of these packages, one after another. */
export async function licenceTexts(packages: readonly string[]): Promise<string> {
  const parts: string[] = [];
  for (const name of packages) {
    const directory = join(repositoryRoot, 'node_modules', name);
    const text = await firstOf(directory, ['LICENSE', 'LICENSE.md', 'license', 'LICENSE.txt']);
    parts.push(`==== ${name}\n\n${text ?? 'Its package carries no text of its licence.\n'}\n`);
  }
  return parts.join('');
}

async function firstOf(directory: string, names: readonly string[]): Promise<string | null> {
  for (const name of names) {
    try {
      return await readFile(join(directory, name), 'utf8');
    } catch {
      // The next name.
    }
  }
  return null;
}
