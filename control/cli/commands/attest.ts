/** `switchback attest` and `switchback bundle rebuild`: statements about a bundle, and whether it can be built again. */
import { resolve } from 'node:path';
import { parseStrictJson } from '#/bundle/strict-json.ts';
import { STATEMENT_MAX_BYTES } from '#/bundle/attestation.ts';
import { attestBundle, rebuildAndCompare } from '#/control/cli/bundle/attest.ts';
import { DEFINITION_MAX_BYTES, parseDefinition } from '#/control/cli/bundle/definition.ts';
import { signBundle } from '#/control/cli/bundle/sign.ts';
import type { CliContext } from '#/control/cli/context.ts';
import { addCommand, type DescribedCommand } from '#/control/cli/describe.ts';
import { readText } from '#/control/cli/files.ts';
import { signingKeys } from '#/control/cli/keys.ts';
import { renderFields } from '#/control/cli/render/table.ts';
import { openSession } from '#/control/cli/session.ts';
import { Problem } from '#/protocol/errors.ts';

interface AttestFlags {
  readonly predicate: string;
  readonly type: string;
  readonly key?: string;
  readonly out?: string;
  readonly send?: boolean;
}

export function addAttestCommand(program: DescribedCommand, context: CliContext): void {
  const command = addCommand(
    program,
    'attest',
    'State something about a bundle, signed: that its tests passed, what a scan found, that you approve it.',
  );
  command
    .argument('<file>', 'the bundle')
    .requiredOption('--predicate <file>', 'what is stated, as a JSON object')
    .requiredOption('--type <uri>', 'what kind of statement it is (predicateType)')
    .option('--key <file>', 'release keys to sign with; without it those of the settings file')
    .option('--out <file>', 'the bundle with the statement; without it the file itself is replaced')
    .option('--send', 'send the statement to control as well, for the release that it has')
    .explain(
      [
        'switchback attest web-2.4.0.bundle --predicate tests.json --type https://switchback.invalid/test-result/v1',
        'switchback attest web-2.4.0.bundle --predicate approval.json --type https://switchback.invalid/approval/v1 --key ann.json --send',
      ],
      '`{artifactId, predicateType, digest, statements, path, bundleBytes, isSent}`',
    )
    .action(async (file: string) => {
      const session = openSession(context, command);
      const flags = command.opts<AttestFlags>();
      const text = await readText(resolve(context.cwd, flags.predicate), STATEMENT_MAX_BYTES);
      const predicate = parseStrictJson(Buffer.from(text), { maxBytes: STATEMENT_MAX_BYTES });
      if (typeof predicate !== 'object' || predicate === null || Array.isArray(predicate)) {
        throw new Problem('E_USAGE', `${flags.predicate} is no JSON object`);
      }
      if (!URL.canParse(flags.type)) throw new Problem('E_USAGE', `${flags.type} is no URI`);
      const keys = await signingKeys(session, flags.key);
      const path = resolve(context.cwd, flags.out ?? file);
      const { envelope, ...result } = await attestBundle(
        resolve(context.cwd, file),
        path,
        { predicateType: flags.type, predicate },
        keys.map((key) => key.signer),
        context.signal,
      );
      const isSent = flags.send === true;
      if (isSent) {
        const { client } = await session.connect();
        const params = { artifact: result.artifactId };
        await client.call('releaseAttest', { params, body: { statements: [envelope] } });
      }
      session.print({ ...result, path, isSent }, (found) =>
        renderFields(
          [
            ['artifact', found.artifactId, 'bold'],
            ['states', found.predicateType],
            ['statement', found.digest],
            ['bundle', `${path}, ${found.statements} statements`],
            ['control', isSent ? 'has it' : 'was not told (--send)'],
          ],
          session.style,
        ),
      );
    });
}

interface RebuildFlags {
  readonly definition: string;
  readonly check?: boolean;
  readonly key?: string;
  readonly out?: string;
}

export function addRebuild(family: DescribedCommand, context: CliContext): void {
  const command = addCommand(
    family,
    'rebuild',
    'Build a bundle again from its input, and check that it is the same artifact.',
  );
  command
    .argument('<file>', 'the bundle')
    .argument(
      '[input]',
      'the directory or image file; not needed when the definition lists payloads',
    )
    .requiredOption('--definition <file>', 'what the release is: TOML or JSON')
    .option('--check', 'compare only; the bundle is not signed')
    .option('--key <file>', 'release keys of the second builder, which sign when it is the same')
    .option('--out <file>', 'the signed bundle; without it the file itself is replaced')
    .explain(
      [
        'switchback bundle rebuild web-2.4.0.bundle ./dist --definition web.toml --check',
        'switchback bundle rebuild web-2.4.0.bundle ./dist --definition web.toml --key second.json',
      ],
      '`{artifactId, isSame, keyIds}`',
    )
    .action(async (file: string, input: string | undefined) => {
      const session = openSession(context, command);
      const flags = command.opts<RebuildFlags>();
      const path = resolve(context.cwd, file);
      const definitionPath = resolve(context.cwd, flags.definition);
      const keys = await signingKeys(session, flags.key);
      const signers = keys.map((key) => key.signer);
      const { artifactId } = await rebuildAndCompare(path, {
        definition: parseDefinition(
          await readText(definitionPath, DEFINITION_MAX_BYTES),
          definitionPath,
        ),
        baseDir: resolve(definitionPath, '..'),
        signers,
        signal: context.signal,
        ...(input === undefined ? {} : { input: resolve(context.cwd, input) }),
      });
      const out = resolve(context.cwd, flags.out ?? file);
      const keyIds =
        flags.check === true
          ? []
          : (await signBundle(path, out, signers, artifactId, context.signal)).keyIds;
      session.print({ artifactId, isSame: true, keyIds }, () =>
        renderFields(
          [
            ['artifact', artifactId, 'bold'],
            ['rebuild', 'the same, byte for byte', 'good'],
            ['signatures', keyIds.length === 0 ? 'none added' : keyIds.join(', ')],
          ],
          session.style,
        ),
      );
    });
}
