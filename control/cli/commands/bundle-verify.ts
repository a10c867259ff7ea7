/** `switchback bundle verify`. */
import { resolve } from 'node:path';
import type { CliContext } from '#/control/cli/context.ts';
import { parseWhole } from '#/control/cli/arguments.ts';
import { verifyBundle } from '#/control/cli/bundle/verify.ts';
import { addCommand, type DescribedCommand } from '#/control/cli/describe.ts';
import { trustedKeys } from '#/control/cli/keys.ts';
import type { Progress } from '#/control/cli/render/progress.ts';
import { renderFields } from '#/control/cli/render/table.ts';
import { formatBytes } from '#/control/cli/render/text.ts';
import { openSession } from '#/control/cli/session.ts';
import { Problem } from '#/protocol/errors.ts';

interface VerifyFlags {
  readonly keys?: string;
  readonly threshold: number;
  readonly signatures: boolean;
}

export function addVerify(family: DescribedCommand, context: CliContext): void {
  const command = addCommand(
    family,
    'verify',
    'Verify a bundle: signatures, every chunk, every file.',
  );
  command
    .argument('<file>', 'the bundle')
    .option(
      '--keys <file>',
      'key file with the trusted release keys; without it that of the settings file',
    )
    .option('--threshold <n>', 'how many of them must have signed', parseWhole(1), 1)
    .option('--no-signatures', 'look at the content only; the result says so')
    .explain(
      [
        'switchback bundle verify web-2.4.0.bundle',
        'switchback bundle verify web-2.4.0.bundle --keys release.json --threshold 2',
      ],
      '`{artifactId, version, release, keyIds, signaturesChecked, attestations, chunkCount, contentBytes}`',
    )
    .action(async (file: string) => {
      const session = openSession(context, command);
      const flags = command.opts<VerifyFlags>();
      if (!flags.signatures && flags.keys !== undefined) {
        throw new Problem('E_USAGE', '--keys and --no-signatures exclude each other');
      }
      const trust = flags.signatures
        ? { keys: await trustedKeys(session, flags.keys), threshold: flags.threshold }
        : null;
      let progress: Progress | null = null;
      const found = await verifyBundle(resolve(context.cwd, file), trust, {
        signal: context.signal,
        onProgress: ({ doneBytes, totalBytes }) => {
          progress ??= session.progress(`verify ${file}`, totalBytes);
          progress.update(doneBytes);
        },
      }).finally(() => progress?.end());
      const { artifactId, manifest, keyIds, signaturesChecked, attestations } = found;
      const { chunkCount, contentBytes } = found;
      const { version, release } = manifest;
      session.print(
        {
          artifactId,
          version,
          release,
          keyIds,
          signaturesChecked,
          attestations,
          chunkCount,
          contentBytes,
        },
        () =>
          renderFields(
            [
              ['artifact', artifactId, 'bold'],
              ['release', `${manifest.class}/${version} (release ${release})`],
              ['content', `${formatBytes(contentBytes)} in ${chunkCount} chunks: all good`, 'good'],
              signaturesChecked
                ? ['signatures', `enough of the trusted keys: ${keyIds.join(', ')}`, 'good']
                : ['signatures', `NOT checked; there are some by ${keyIds.join(', ')}`, 'warn'],
              [
                'attested',
                `${attestations.join(', ') || 'nothing'} (who signed it is not checked)`,
              ],
            ],
            session.style,
          ),
      );
    });
}
