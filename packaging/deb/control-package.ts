/** switchback-control: the server and the operator's program, with their own Node. */
import { execFile } from 'node:child_process';
import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { repositoryRoot } from '#/packaging/build/origin.ts';
import { documents, launcher, type PackageOrigin, programFiles } from './common-files.ts';
import { operatorCompletions } from './completions.ts';
import { controlManual, operatorManual } from './manual.ts';
import { type DebPackage, gzipped } from './write-deb.ts';

const NAME = 'switchback-control';

/** All that `apt install` puts on the server, or on an operator's machine. */
export async function controlPackage(origin: PackageOrigin): Promise<DebPackage> {
  const from = (path: string): Promise<string> =>
    readFile(join(repositoryRoot, 'packaging', path), 'utf8');
  const migrations = await readdir(join(repositoryRoot, 'dist/migrations'));
  // Those of the agent are in its own package.
  const bundles = (await readdir(join(repositoryRoot, 'dist'))).filter(
    (file) => file.endsWith('.mjs') && !/^(?:agent|install-)/.test(file),
  );
  const { stdout: usage } = await promisify(execFile)(process.execPath, [
    join(repositoryRoot, 'dist/control.mjs'),
    '--help',
  ]);
  return {
    ...origin,
    name: NAME,
    fields: [
      'Depends: libc6 (>= 2.28), libstdc++6 (>= 8), libgcc-s1, libatomic1, systemd | systemd-standalone-sysusers',
      'Homepage: https://switchback.invalid',
    ],
    description:
      'control server and operator program of a Switchback fleet\n' +
      ' Pins versions for groups of hosts, serves signed metadata and bundles to their\n' +
      ' agents, and rolls out canary first. Integrity never depends on it.\n' +
      ' .\n Contains the Node runtime that it needs.',
    directories: [],
    scripts: Object.fromEntries(
      ['postinst', 'prerm', 'postrm'].map((script) => [
        script,
        join(repositoryRoot, 'packaging/deb/control', script),
      ]),
    ),
    files: [
      ...(await programFiles(NAME, origin, [
        ...bundles,
        'gate-worker.mjs',
        ...migrations.map((file) => `migrations/${file}`),
      ])),
      {
        path: `/usr/bin/${NAME}`,
        content: launcher(NAME, ['--no-warnings'], 'control.mjs'),
        mode: 0o755,
      },
      {
        path: '/usr/bin/switchback',
        content: launcher(NAME, ['--no-warnings'], 'cli.mjs'),
        mode: 0o755,
      },
      {
        path: '/lib/systemd/system/switchback-control.service',
        content: await from('systemd/switchback-control.service'),
      },
      {
        path: '/usr/lib/sysusers.d/switchback-control.conf',
        content: 'u switchback-control - "Switchback control" /var/lib/switchback-control\n',
      },
      {
        path: '/usr/lib/tmpfiles.d/switchback-control.conf',
        content: 'd /var/lib/switchback-control 0700 switchback-control switchback-control -\n',
      },
      {
        path: '/etc/default/switchback-control',
        content: await from('deb/control/default'),
        isConfiguration: true,
      },
      {
        path: '/usr/share/man/man8/switchback-control.8.gz',
        content: gzipped(controlManual(origin, usage)),
      },
      { path: '/usr/share/man/man1/switchback.1.gz', content: gzipped(operatorManual(origin)) },
      ...operatorCompletions(),
      ...(await documents(NAME, ['control', 'cli'], origin)),
    ],
  };
}
