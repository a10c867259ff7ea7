/** switchback-agent: the agent with its own Node, the guard, their units. */
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { allocatorSettings, nodeFlags } from '#/packaging/build/node-flags.ts';
import { repositoryRoot } from '#/packaging/build/origin.ts';
import { documents, launcher, type PackageOrigin, programFiles } from './common-files.ts';
import { agentCompletions } from './completions.ts';
import { agentManual, guardManual } from './manual.ts';
import { type DebPackage, gzipped, type PackagedFile } from './write-deb.ts';

const NAME = 'switchback-agent';
const UNITS = [
  'switchback-agent.service',
  'switchback-guard-boot.service',
  'switchback-secrets.service',
  'switchback-guard.service',
  'switchback-guard.timer',
];

/** All that `apt install` puts on a host. */
export async function agentPackage(origin: PackageOrigin): Promise<DebPackage> {
  const from = (path: string): Promise<string> =>
    readFile(join(repositoryRoot, 'packaging', path), 'utf8');
  const units: PackagedFile[] = [];
  for (const unit of UNITS)
    units.push({ path: `/lib/systemd/system/${unit}`, content: await from(`systemd/${unit}`) });
  const examples = `/usr/share/doc/${NAME}/examples`;
  return {
    ...origin,
    name: NAME,
    fields: [
      // What the guard needs (a shell, flock, setpriv, setsid, cksum, sync) every Debian has.
      'Depends: libc6 (>= 2.28), libstdc++6 (>= 8), libgcc-s1, libatomic1',
      'Recommends: systemd, ca-certificates',
      'Homepage: https://switchback.invalid',
    ],
    description:
      'keeps this host on the signed version its operators pinned\n' +
      ' Fetches, verifies, writes and starts signed versions of what this host runs,\n' +
      ' watches them, and goes back by itself when a version is bad. A guard that is\n' +
      ' independent of the agent goes back when the agent cannot.\n' +
      ' .\n Contains the Node runtime that it needs.',
    directories: ['/etc/switchback/config.d', '/usr/lib/switchback'],
    scripts: Object.fromEntries(
      ['postinst', 'prerm', 'postrm'].map((script) => [
        script,
        join(repositoryRoot, 'packaging/deb/agent', script),
      ]),
    ),
    files: [
      ...(await programFiles(NAME, origin, [
        'agent.mjs',
        'install-child.mjs',
        'install-worker.mjs',
      ])),
      {
        path: `/usr/bin/${NAME}`,
        content: launcher(NAME, nodeFlags, 'agent.mjs', allocatorSettings),
        mode: 0o755,
      },
      {
        path: '/usr/lib/switchback/switchback-guard',
        content: await from('guard/switchback-guard'),
        mode: 0o755,
      },
      ...(await imageFiles(from)),
      ...(await Promise.all(
        ['guard-directory', 'guard-partition'].map(async (name) => ({
          path: `/usr/lib/switchback/${name}`,
          content: await from(`guard/${name}`),
        })),
      )),
      ...units,
      {
        path: '/usr/lib/tmpfiles.d/switchback-agent.conf',
        content: 'd /run/switchback 0700 root root -\n',
      },
      { path: `/usr/share/man/man8/${NAME}.8.gz`, content: gzipped(agentManual(origin)) },
      { path: '/usr/share/man/man8/switchback-guard.8.gz', content: gzipped(guardManual(origin)) },
      ...agentCompletions(),
      { path: `${examples}/10-host.toml`, content: await from('deb/examples/10-host.toml') },
      { path: `${examples}/cloud-init.yaml`, content: await from('deb/examples/cloud-init.yaml') },
      {
        path: `${examples}/10-units-only.conf`,
        content: await from('systemd/switchback-agent-units-only.conf'),
      },
      ...(await documents(NAME, ['agent'], origin)),
    ],
  };
}

/** What the image kit runs and takes inside the root of an image (docs/specs/images.md). */
async function imageFiles(
  from: (path: string) => Promise<string>,
): Promise<readonly PackagedFile[]> {
  const programs = ['switchback-image-prepare', 'initramfs-hook', 'initramfs-script'];
  const files: PackagedFile[] = [];
  const units = ['switchback-enrol.service', 'switchback-boot-phase.service'];
  for (const name of [...programs, ...units])
    files.push({
      path: `/usr/lib/switchback/image/${name}`,
      content: await from(`image/${name}`),
      ...(programs.includes(name) ? { mode: 0o755 } : {}),
    });
  return files;
}
