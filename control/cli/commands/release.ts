/** `switchback release …`: signed bundles that control may offer. */
import { createReadStream } from 'node:fs';
import { resolve } from 'node:path';
import type { CliContext } from '#/control/cli/context.ts';
import { openBundle } from '#/control/cli/bundle/read.ts';
import { addCommand, addFamily, type DescribedCommand } from '#/control/cli/describe.ts';
import { fileSize } from '#/control/cli/files.ts';
import { all, findRelease, releases } from '#/control/cli/lookup.ts';
import type { Progress } from '#/control/cli/render/progress.ts';
import { renderFields, renderTable, type TableStyle } from '#/control/cli/render/table.ts';
import { formatBytes, formatMoment } from '#/control/cli/render/text.ts';
import { openSession } from '#/control/cli/session.ts';
import type { PatchView, ReleaseView } from '#/protocol/release.ts';

export function addReleaseCommands(program: DescribedCommand, context: CliContext): void {
  const family = addFamily(program, 'release', 'Releases: signed bundles that can be pinned.');
  addImport(family, context);
  addReference(family, context);
  addList(family, context);
  addShow(family, context);
  addRevoke(family, context);
}

/** The bytes of a file, told to `progress` as they go out. */
async function* counted(
  path: string,
  progress: Progress,
): AsyncGenerator<Uint8Array, void, undefined> {
  let sentBytes = 0;
  for await (const part of createReadStream(path, { highWaterMark: 1024 * 1024 })) {
    const bytes = part as Uint8Array;
    yield bytes;
    sentBytes += bytes.byteLength;
    progress.update(sentBytes);
  }
}

function addImport(family: DescribedCommand, context: CliContext): void {
  const command = addCommand(
    family,
    'import',
    'Upload a signed bundle; control verifies all of it.',
  );
  command
    .argument('<file>', 'the bundle')
    .option(
      '--patch <file...>',
      'patches to this release from others that control holds (switchback bundle patch)',
    )
    .explain(
      [
        'switchback release import web-2.4.0.bundle',
        'switchback release import web-2.4.0.bundle --patch web-2.4.0.from-*.patch',
      ],
      'the release, as `GET /api/v1/releases/{artifact}`; with --patch also `patches: [{from, to, patchBytes}]`',
    )
    .action(async (file: string) => {
      const session = openSession(context, command);
      const { patient } = await session.connect();
      const patchFiles = command.opts<{ patch?: readonly string[] }>().patch ?? [];
      const path = resolve(context.cwd, file);
      const sizeBytes = await fileSize(path);
      const progress = session.progress(`import ${file}`, sizeBytes);
      let release: ReleaseView;
      try {
        release = await patient.call('releaseImport', {
          body: counted(path, progress),
          headers: { 'content-length': String(sizeBytes) },
        });
      } finally {
        progress.end();
      }
      const patches: PatchView[] = [];
      for (const patch of patchFiles) {
        const patchPath = resolve(context.cwd, patch);
        const patchBytes = await fileSize(patchPath);
        const sending = session.progress(`import ${patch}`, patchBytes);
        try {
          patches.push(
            await patient.call('releasePatch', {
              params: { artifact: release.artifactId },
              body: counted(patchPath, sending),
              headers: { 'content-length': String(patchBytes) },
            }),
          );
        } finally {
          sending.end();
        }
      }
      session.print(patchFiles.length === 0 ? release : { ...release, patches }, () =>
        [
          details(release, session.style),
          ...patches.map(
            ({ from, patchBytes }) => `patch from ${from.slice(0, 12)}, ${formatBytes(patchBytes)}`,
          ),
        ].join('\n'),
      );
      session.note(`next: switchback pin GROUP ${release.version} --reason "…"`);
    });
}

function addList(family: DescribedCommand, context: CliContext): void {
  const command = addCommand(family, 'ls', 'List releases, newest first.');
  command
    .explain(
      ['switchback release ls'],
      '`{items: [release]}`, as `GET /api/v1/releases`; all pages',
    )
    .action(async () => {
      const session = openSession(context, command);
      const { client } = await session.connect();
      const items = await all(releases(client));
      session.print({ items }, (found) =>
        renderTable(
          found.items,
          [
            { title: 'ARTIFACT', value: (release) => release.artifactId.slice(0, 12) },
            { title: 'CLASS', value: (release) => release.class },
            { title: 'VERSION', value: (release) => release.version },
            { title: 'RELEASE', value: (release) => String(release.release), align: 'right' },
            { title: 'ARCH', value: (release) => release.arch },
            {
              title: 'STATE',
              value: (release) => release.state,
              tone: (release) => (release.state === 'revoked' ? 'bad' : 'plain'),
            },
            { title: 'SIZE', value: (release) => formatBytes(release.sizeBytes), align: 'right' },
            { title: 'HOSTS', value: (release) => String(release.hostsRunning), align: 'right' },
            {
              title: 'PINNED BY',
              value: (release) => release.pinnedBy.join(', ') || '-',
              flexible: true,
            },
          ],
          session.style,
          'no releases yet: switchback release import FILE',
        ),
      );
    });
}

function addReference(family: DescribedCommand, context: CliContext): void {
  const command = addCommand(
    family,
    'reference',
    'Admit a bundle that hosts fetch elsewhere: only its manifest and signatures go to control.',
  );
  command
    .argument('<file>', 'the bundle')
    .argument('<url...>', 'http or https addresses of the same file, best first')
    .explain(
      ['switchback release reference web-2.4.0.bundle https://mirror.example/web-2.4.0.bundle'],
      'the release, as `GET /api/v1/releases/{artifact}`',
    )
    .action(async (file: string, sources: readonly string[]) => {
      const session = openSession(context, command);
      const { client } = await session.connect();
      await using bundle = await openBundle(resolve(context.cwd, file), null);
      const manifest = Buffer.from(bundle.manifestBytes).toString('base64');
      const body = { manifest, envelope: bundle.envelope, sources: [...sources] };
      const release = await client.call('releaseReference', { body });
      session.print(release, (found) => details(found, session.style));
    });
}

function details(release: ReleaseView, style: TableStyle): string {
  const held =
    release.bundleBytes === null ? 'elsewhere' : `here, ${formatBytes(release.bundleBytes)}`;
  return renderFields(
    [
      ['artifact', release.artifactId],
      [
        'release',
        `${release.class}/${release.version} (release ${release.release}, ${release.arch})`,
      ],
      [
        'state',
        release.revokedReason === null
          ? release.state
          : `${release.state}: ${release.revokedReason}`,
        release.state === 'revoked' ? 'bad' : 'good',
      ],
      ['content', formatBytes(release.sizeBytes)],
      ['bundle', held],
      ['sources', release.sources.join(', ') || '-'],
      ['signed by', release.signers.map((key) => key.slice(0, 16)).join(', ')],
      ['imported', `${formatMoment(release.importedAtMs)} by ${release.importedBy}`],
      ['hosts', String(release.hostsRunning)],
      ['pinned by', release.pinnedBy.join(', ') || 'no group'],
    ],
    style,
  );
}

function addShow(family: DescribedCommand, context: CliContext): void {
  const command = addCommand(family, 'show', 'Show one release.');
  command
    .argument('<release>', 'version, class/version, or the start of the artifact id')
    .explain(['switchback release show 2.4.0'], 'the release, as `GET /api/v1/releases/{artifact}`')
    .action(async (text: string) => {
      const session = openSession(context, command);
      const { client } = await session.connect();
      session.print(await findRelease(client, text), (found) => details(found, session.style));
    });
}

function addRevoke(family: DescribedCommand, context: CliContext): void {
  const command = addCommand(family, 'revoke', 'Never offer a release again; its rollouts halt.');
  command
    .argument('<release>', 'version, class/version, or the start of the artifact id')
    .requiredOption('--reason <text>', 'why; everybody will see it')
    .explain(
      ['switchback release revoke 2.4.0 --reason "leaks descriptors"'],
      'the release, as `GET /api/v1/releases/{artifact}`',
    )
    .action(async (text: string) => {
      const session = openSession(context, command);
      const { client } = await session.connect();
      const { artifactId } = await findRelease(client, text);
      const body = { reason: command.opts<{ reason: string }>().reason };
      const revoked = await client.call('releaseRevoke', {
        params: { artifact: artifactId },
        body,
      });
      session.print(revoked, (found) => details(found, session.style));
    });
}
