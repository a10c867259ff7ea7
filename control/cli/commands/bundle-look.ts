/** `switchback bundle inspect` and `diff`. */
import { resolve } from 'node:path';
import type { CliContext } from '#/control/cli/context.ts';
import { diffBundles } from '#/control/cli/bundle/diff.ts';
import { inspectBundle } from '#/control/cli/bundle/inspect.ts';
import { addCommand, type DescribedCommand } from '#/control/cli/describe.ts';
import { renderFields, renderTable } from '#/control/cli/render/table.ts';
import { formatBytes, formatMoment } from '#/control/cli/render/text.ts';
import { openSession } from '#/control/cli/session.ts';

export function addInspect(family: DescribedCommand, context: CliContext): void {
  const command = addCommand(family, 'inspect', 'Show what a bundle holds. Nothing is verified.');
  command
    .argument('<file>', 'the bundle')
    .option('--files', 'list the files of its trees')
    .explain(
      [
        'switchback bundle inspect web-2.4.0.bundle',
        'switchback bundle inspect web-2.4.0.bundle --json | jq .manifest.health',
      ],
      '`{path, artifactId, manifest, bundleBytes, keyIds, attestations, indexBytes, chunks, payloads}`; entries of trees with --files',
    )
    .action(async (file: string) => {
      const session = openSession(context, command);
      const withFiles = command.opts<{ files?: boolean }>().files === true;
      const found = await inspectBundle(resolve(context.cwd, file));
      const payloads = found.payloads.map((payload) =>
        withFiles ? payload : { ...payload, entries: payload.entries?.length ?? null },
      );
      session.print({ ...found, payloads }, () => {
        const { manifest, chunks } = found;
        const checks = manifest.health.map((check) => `${check.name} (${check.kind})`);
        const head = renderFields(
          [
            ['artifact', found.artifactId, 'bold'],
            [
              'release',
              `${manifest.class}/${manifest.version} (release ${manifest.release}, ${manifest.arch})`,
            ],
            ['created', formatMoment(manifest.created * 1000)],
            ['bundle', formatBytes(found.bundleBytes)],
            [
              'chunks',
              `${chunks.count}, ${formatBytes(chunks.rawBytes)} stored in ${formatBytes(chunks.storedBytes)}, average ${formatBytes(chunks.averageBytes)}`,
            ],
            ['activation', manifest.activation.kind],
            ['health', checks.join(', ') || 'no checks of its own'],
            ['trial', `soak ${manifest.trial.soakMs} ms, deadline ${manifest.trial.deadlineMs} ms`],
            ['signatures', `${found.keyIds.join(', ')} (not checked)`],
            ['attestations', String(found.attestations.length)],
          ],
          session.style,
        );
        const table = renderTable(
          found.payloads,
          [
            { title: 'PAYLOAD', value: (payload) => payload.name },
            { title: 'KIND', value: (payload) => payload.kind },
            { title: 'SIZE', value: (payload) => formatBytes(payload.sizeBytes), align: 'right' },
            { title: 'HOLES', value: (payload) => formatBytes(payload.holeBytes), align: 'right' },
            {
              title: 'ENTRIES',
              value: (payload) => (payload.entries === null ? '-' : String(payload.entries.length)),
              align: 'right',
            },
          ],
          session.style,
          'no payloads',
        );
        const entries = withFiles ? found.payloads.flatMap((payload) => payload.entries ?? []) : [];
        const files = renderTable(
          entries,
          [
            { title: 'MODE', value: (entry) => entry.mode.toString(8).padStart(4, '0') },
            { title: 'KIND', value: (entry) => entry.kind },
            {
              title: 'SIZE',
              value: (entry) => (entry.kind === 'file' ? String(entry.sizeBytes) : '-'),
              align: 'right',
            },
            { title: 'PATH', value: (entry) => entry.path },
          ],
          session.style,
          'no files',
        );
        return `${head}\n${table}${withFiles ? `\n${files}` : ''}`;
      });
    });
}

export function addDiff(family: DescribedCommand, context: CliContext): void {
  const command = addCommand(
    family,
    'diff',
    'Say what a host with one bundle downloads for another.',
  );
  command
    .argument('<from-file>', 'the bundle that the host runs')
    .argument('<to-file>', 'the bundle that it is to run')
    .option('--files', 'list the files that differ')
    .explain(
      [
        'switchback bundle diff web-2.3.9.bundle web-2.4.0.bundle',
        'switchback bundle diff old.bundle new.bundle --files',
      ],
      '`{from, to, downloadBytes, metadataBytes, chunkBytes, fullBytes, requests, chunks, reusedBytes, patch, files}`; patch: `{path, downloadBytes}` or null',
    )
    .action(async (from: string, to: string) => {
      const session = openSession(context, command);
      const diff = await diffBundles(resolve(context.cwd, from), resolve(context.cwd, to));
      const changes = diff.files.flatMap((payload) =>
        payload.changes.map((change) => ({ payload: payload.payload, ...change })),
      );
      session.print(diff, (found) => {
        const share = found.fullBytes === 0 ? 0 : (found.downloadBytes / found.fullBytes) * 100;
        const head = renderFields(
          [
            ['from', `${found.from.version} (release ${found.from.release})`],
            ['to', `${found.to.version} (release ${found.to.release})`],
            [
              'download',
              `${formatBytes(found.downloadBytes)} in ${found.requests} requests, ${share.toFixed(1)}% of ${formatBytes(found.fullBytes)}`,
              'bold',
            ],
            [
              'reused',
              `${formatBytes(found.reusedBytes)}, ${found.chunks.reused} of ${found.chunks.total} chunks`,
            ],
            [
              'by patch',
              found.patch === null
                ? 'none beside the bundle (switchback bundle patch)'
                : formatBytes(found.patch.downloadBytes),
            ],
            ['files', `${changes.length} differ`],
          ],
          session.style,
        );
        if (command.opts<{ files?: boolean }>().files !== true) return head;
        const table = renderTable(
          changes,
          [
            { title: 'CHANGE', value: (change) => change.change },
            { title: 'SIZE', value: (change) => formatBytes(change.sizeBytes), align: 'right' },
            { title: 'PATH', value: (change) => change.path },
          ],
          session.style,
          'no files differ',
        );
        return `${head}\n${table}`;
      });
    });
}
