/** `switchback bundle sign`: a second person signs the bytes that they built, too. */
import { resolve } from 'node:path';
import * as v from 'valibot';
import type { CliContext } from '#/control/cli/context.ts';
import { signBundle } from '#/control/cli/bundle/sign.ts';
import { addCommand, type DescribedCommand } from '#/control/cli/describe.ts';
import { signingKeys } from '#/control/cli/keys.ts';
import { renderFields } from '#/control/cli/render/table.ts';
import { formatBytes } from '#/control/cli/render/text.ts';
import { openSession } from '#/control/cli/session.ts';
import { Problem } from '#/protocol/errors.ts';
import { type ArtifactId, artifactId } from '#/protocol/ids.ts';

interface SignFlags {
  readonly key?: string;
  readonly out?: string;
  readonly expect?: string;
}

export function addSign(family: DescribedCommand, context: CliContext): void {
  const command = addCommand(
    family,
    'sign',
    'Add signatures to a bundle; its bytes stay as they are.',
  );
  command
    .argument('<file>', 'the bundle')
    .option('--key <file>', 'release keys to sign with; without it those of the settings file')
    .option('--out <file>', 'write here instead of replacing the bundle')
    .option('--expect <artifact>', 'sign only this artifact id: the one you built yourself')
    .explain(
      [
        'switchback bundle sign web-2.4.0.bundle --key second-release.json',
        'switchback bundle sign web-2.4.0.bundle --expect "$(switchback bundle inspect mine.bundle --json | jq -r .artifactId)"',
      ],
      '`{artifactId, keyIds, bundleBytes}`: all key ids that have signed',
    )
    .action(async (file: string) => {
      const session = openSession(context, command);
      const flags = command.opts<SignFlags>();
      const path = resolve(context.cwd, file);
      const out = flags.out === undefined ? path : resolve(context.cwd, flags.out);
      const keys = await signingKeys(session, flags.key);
      const signers = keys.map((key) => key.signer);
      const result = await signBundle(path, out, signers, expected(flags), context.signal);
      session.print(result, (done) =>
        renderFields(
          [
            ['artifact', done.artifactId, 'bold'],
            ['signed by', done.keyIds.join(', ')],
            ['bundle', `${out}, ${formatBytes(done.bundleBytes)}`],
          ],
          session.style,
        ),
      );
    });
}

function expected(flags: SignFlags): ArtifactId | null {
  if (flags.expect === undefined) return null;
  const parsed = v.safeParse(artifactId, flags.expect);
  if (parsed.success) return parsed.output;
  throw new Problem('E_USAGE', `--expect ${flags.expect}: ${parsed.issues[0].message}`);
}
