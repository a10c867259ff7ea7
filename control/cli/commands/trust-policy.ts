/** `switchback trust policy` and `switchback gate test`: the signed documents of the policy, and rules tried before they are signed. */
import { resolve } from 'node:path';
import {
  type BuildersDocument,
  buildersDocument,
  type LogDocument,
  logDocument,
  readDocument,
} from '#/bundle/trust/documents.ts';
import {
  type AttestersDocument,
  attestersDocument,
  type GatesDocument,
  gatesDocument,
} from '#/bundle/trust/gates.ts';
import { parseStrictJson } from '#/bundle/strict-json.ts';
import type { CliContext } from '#/control/cli/context.ts';
import { addCommand, addFamily, type DescribedCommand } from '#/control/cli/describe.ts';
import { readText } from '#/control/cli/files.ts';
import { renderTable } from '#/control/cli/render/table.ts';
import { openSession } from '#/control/cli/session.ts';
import { setAttesters, setGates } from '#/control/trust/gates.ts';
import type { Repository, RepositoryFile } from '#/control/trust/repository.ts';
import { setBuilders, setLog } from '#/control/trust/targets.ts';
import { Problem } from '#/protocol/errors.ts';
import { changing, run } from './trust-change.ts';

const FILE_MAX_BYTES = 512 * 1024;

/** The public halves of the keys that control holds: what `log.json` and `gates.json` name. */
export function addTrustKeysList(family: DescribedCommand, context: CliContext): void {
  const command = addCommand(family, 'keys', 'Show the public halves of the keys in control.');
  command
    .explain(['switchback trust keys'], '`{keys: [{use, keyId, public}]}`')
    .action(async () => {
      const session = openSession(context, command);
      const { client } = await session.connect();
      session.print(await client.call('trustKeys', {}), ({ keys }) =>
        renderTable(
          keys,
          [
            { title: 'USE', value: (key) => key.use },
            { title: 'PUBLIC', value: (key) => key.public },
            { title: 'ID', value: (key) => key.keyId, flexible: true },
          ],
          session.style,
          'control holds no keys',
        ),
      );
    });
}

/** Signs a document of the policy role: what it is says its `schema`. */
export function addPolicyDocument(family: DescribedCommand, context: CliContext): void {
  const command = changing(
    family,
    'policy',
    'Set the builders, gates, attesters or audit log that hosts go by: a JSON file, told by its schema.',
    'gates.json --key policy.json --reason "two approvals for prod"',
  ).argument(
    '<file>',
    'switchback.builders/1, switchback.gates/1, switchback.attesters/1 or switchback.log/1',
  );
  command.action(async (file: string) => {
    const path = resolve(context.cwd, file);
    const change = await changeOf(path);
    await run(context, command, change);
  });
}

async function changeOf(
  path: string,
): Promise<(repository: Repository) => readonly RepositoryFile[]> {
  const bytes = Buffer.from(await readText(path, FILE_MAX_BYTES));
  const value = parseStrictJson(bytes, { maxBytes: FILE_MAX_BYTES });
  const schema =
    typeof value === 'object' && value !== null && 'schema' in value ? value['schema'] : null;
  if (schema === 'switchback.gates/1') {
    const document: GatesDocument = readDocument(path, gatesDocument, bytes);
    const { checkRule } = await import('#/control/policy/rules.ts');
    for (const rule of document.rules) checkRule(rule);
    return (repository) => setGates(repository, document);
  }
  if (schema === 'switchback.attesters/1') {
    const document: AttestersDocument = readDocument(path, attestersDocument, bytes);
    return (repository) => setAttesters(repository, document);
  }
  if (schema === 'switchback.builders/1') {
    const document: BuildersDocument = readDocument(path, buildersDocument, bytes);
    return (repository) => setBuilders(repository, document);
  }
  if (schema === 'switchback.log/1') {
    const document: LogDocument = readDocument(path, logDocument, bytes);
    return (repository) => setLog(repository, document);
  }
  throw new Problem('E_SCHEMA', `${path} is of no schema that the policy has`, { path });
}

export function addGateCommands(program: DescribedCommand, context: CliContext): void {
  const family = addFamily(program, 'gate', 'Policy gates: what must be stated before a pin.');
  const command = addCommand(
    family,
    'test',
    'Try rules on example facts: each must decide as it says, and each rule must deny one.',
  );
  command
    .argument('<gates>', 'the rules: switchback.gates/1')
    .argument('<examples>', 'the facts: switchback.gate-examples/1')
    .explain(
      ['switchback gate test gates.json examples.json'],
      '`{rules, examples, wrong: [text]}`',
    )
    .action(async (gatesFile: string, examplesFile: string) => {
      const session = openSession(context, command);
      const { examplesDocument, failedExamples } = await import('#/control/policy/examples.ts');
      const read = async (file: string): Promise<Uint8Array> =>
        Buffer.from(await readText(resolve(context.cwd, file), FILE_MAX_BYTES));
      const { rules } = readDocument(gatesFile, gatesDocument, await read(gatesFile));
      const examples = readDocument(examplesFile, examplesDocument, await read(examplesFile));
      const wrong = await failedExamples(rules, examples);
      if (wrong.length > 0) {
        throw new Problem(
          'E_GATE',
          `the rules are not what their examples say: ${wrong.join('; ')}`,
          {
            wrong: [...wrong],
          },
        );
      }
      const result = { rules: rules.length, examples: examples.examples.length, wrong };
      session.print(
        result,
        (found) => `${found.rules} rules decide ${found.examples} examples as they should\n`,
      );
    });
}
