/** `switchback bundle patch`. */
import { resolve } from 'node:path';
import { parseWhole } from '#/control/cli/arguments.ts';
import { buildPatch } from '#/control/cli/bundle/patch-build.ts';
import { verifyPatch } from '#/control/cli/bundle/patch-verify.ts';
import { openBundle } from '#/control/cli/bundle/read.ts';
import type { CliContext } from '#/control/cli/context.ts';
import { addCommand, type DescribedCommand } from '#/control/cli/describe.ts';
import { renderFields } from '#/control/cli/render/table.ts';
import { formatBytes } from '#/control/cli/render/text.ts';
import { openSession } from '#/control/cli/session.ts';
import { patchPathOf } from '#/bundle/patch.ts';

interface PatchFlags {
  readonly out?: string;
  readonly workers?: number;
}

export function addPatch(family: DescribedCommand, context: CliContext): void {
  const command = addCommand(
    family,
    'patch',
    'Make a patch: what hosts with one bundle need for another, smaller than the chunks they lack.',
  );
  command
    .argument('<from-file>', 'the bundle that hosts run')
    .argument('<to-file>', 'the bundle that they are to run')
    .option('--out <file>', 'the patch; beside the second bundle, where hosts look, unless given')
    .option('--workers <n>', 'compressing threads; all cores unless given', parseWhole(1))
    .explain(
      [
        'switchback bundle patch web-2.3.9.bundle web-2.4.0.bundle',
        'switchback release import web-2.4.0.bundle --patch web-2.4.0.from-….patch',
      ],
      '`{path, from, to, patchBytes, segments, chunkBytes}`; chunkBytes is what a host downloads without it',
    )
    .action(async (from: string, to: string) => {
      const session = openSession(context, command);
      const flags = command.opts<PatchFlags>();
      const [fromPath, toPath] = [resolve(context.cwd, from), resolve(context.cwd, to)];
      const out = resolve(context.cwd, flags.out ?? patchPathOf(toPath, await idOf(fromPath)));
      let progress: ReturnType<typeof session.progress> | null = null;
      const result = await buildPatch({
        from: fromPath,
        to: toPath,
        out,
        signal: context.signal,
        ...(flags.workers === undefined ? {} : { workers: flags.workers }),
        onProgress: ({ doneBytes, totalBytes }) => {
          progress ??= session.progress('patch', totalBytes);
          progress.update(doneBytes);
        },
      }).finally(() => progress?.end());
      // What hosts would find out one by one.
      await verifyPatch(out, fromPath, toPath);
      session.print(result, (made) =>
        renderFields(
          [
            ['patch', made.path, 'bold'],
            ['size', `${formatBytes(made.patchBytes)}, ${made.segments} segments`],
            ['instead of', `${formatBytes(made.chunkBytes)} of chunks`],
          ],
          session.style,
        ),
      );
    });
}

async function idOf(path: string): Promise<string> {
  await using bundle = await openBundle(path, null);
  return bundle.artifactId;
}
