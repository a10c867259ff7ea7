/** `switchback bundle sign`. */
import { resolve } from 'node:path';
import * as v from 'valibot';
import type { CliContext } from '#/control/cli/context.ts';
import { signBundle } from '#/control/cli/bundle/sign.ts';
import { addCommand, type DescribedCommand } from '#/control/cli/describe.ts';
import { signingKeys } from '#/control/cli/keys.ts';
import { renderFields } from '#/control/cli/render/table.ts';
import { openSession } from '#/control/cli/session.ts';
import { Problem } from '#/protocol/errors.ts';
import { artifactId as artifactIdText } from '#/protocol/ids.ts';

interface SignFlags {
  readonly artifact: string;
  readonly out?: string;
  readonly key?: string;
}

export function addSign(family: DescribedCommand, context: CliContext): void {
  const command = addCommand(
    family,
    'sign',
    'Add a signature to a bundle that you built yourself, with the same result.',
  );
  command
    .argument('<file>', 'the bundle')
    .requiredOption(
      '--artifact <id>',
      'the artifact id that your own build gave; another one is not signed',
    )
    .option('--out <file>', 'the signed bundle; without it the file itself is replaced')
    .option('--key <file>', 'release keys to sign with; without it those of the settings file')
    .explain(
      [
        'switchback bundle sign web-2.4.0.bundle --artifact 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08 --key second.json',
      ],
      '`{artifactId, keyIds, path, bundleBytes}`',
    )
    .action(async (file: string) => {
      const session = openSession(context, command);
      const flags = command.opts<SignFlags>();
      const expected = v.safeParse(artifactIdText, flags.artifact);
      if (!expected.success) {
        throw new Problem('E_USAGE', `--artifact ${flags.artifact} is not an artifact id`);
      }
      const keys = await signingKeys(session, flags.key);
      const path = resolve(context.cwd, flags.out ?? file);
      const { artifactId, keyIds, bundleBytes } = await signBundle(
        resolve(context.cwd, file),
        path,
        keys.map((key) => key.signer),
        expected.output,
        context.signal,
      );
      session.print({ artifactId, keyIds, path, bundleBytes }, () =>
        renderFields(
          [
            ['artifact', artifactId, 'bold'],
            ['bundle', path],
            ['signatures', keyIds.join(', '), 'good'],
          ],
          session.style,
        ),
      );
    });
}
