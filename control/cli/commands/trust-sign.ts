/** `switchback trust sign` and `publish`: signing needs no network, publishing needs no key. */
import { readFile } from 'node:fs/promises';
import { resolve } from 'node:path';
import { keep } from '#/control/cli/commands/trust-change.ts';
import type { CliContext } from '#/control/cli/context.ts';
import { addCommand, type DescribedCommand } from '#/control/cli/describe.ts';
import { fileSize } from '#/control/cli/files.ts';
import { openSession } from '#/control/cli/session.ts';
import { proposalLines } from '#/control/cli/trust/proposal-text.ts';
import { secretKeys } from '#/control/cli/trust/role-keys.ts';
import { decodeProposal, missingSignatures, signNeeded } from '#/control/trust/proposal.ts';
import { Problem } from '#/protocol/errors.ts';
import { type Proposal, PROPOSAL_MAX_BYTES } from '#/protocol/proposal.ts';

async function readProposal(path: string): Promise<Proposal> {
  const sizeBytes = await fileSize(path);
  if (sizeBytes > 2 * PROPOSAL_MAX_BYTES)
    throw new Problem('E_TOOBIG', `${path} has ${sizeBytes} bytes`, { path });
  return decodeProposal(await readFile(path));
}

/** Adds `sign`, `show` and `publish`. */
export function addTrustSigning(family: DescribedCommand, context: CliContext): void {
  const sign = addCommand(
    family,
    'sign',
    'Sign a proposal on your own machine, away from control. It shows all that you vouch for.',
  );
  sign
    .argument('<proposal>', 'the file')
    .requiredOption('--key <file...>', 'your key files')
    .requiredOption('--out <file>', 'the signed proposal; must not exist')
    .explain(
      ['switchback trust sign pin.proposal --key bob.json --out pin.signed'],
      '`{path, missing: [{role, missing}]}`',
    )
    .action(async (file: string) => {
      const session = openSession(context, sign);
      const { key, out } = sign.opts<{ key: readonly string[]; out: string }>();
      const proposal = await readProposal(resolve(context.cwd, file));
      const signed = signNeeded(proposal, await secretKeys(context.cwd, key));
      if (signed.signatures === 0)
        throw new Problem('E_SIGS', `${file} needs a signature by none of these keys`);
      await keep(session, resolve(context.cwd, out), signed.proposal);
    });
  const show = addCommand(family, 'show', 'Show what a proposal changes and who must still sign.');
  show
    .argument('<proposal>', 'the file')
    .explain(
      ['switchback trust show pin.proposal'],
      '`{reason, lines: [text], missing: [{role, missing}]}`',
    )
    .action(async (file: string) => {
      const proposal = await readProposal(resolve(context.cwd, file));
      const lines = proposalLines(proposal);
      const shown = { reason: proposal.reason, lines, missing: missingSignatures(proposal) };
      openSession(context, show).print(shown, () => `${lines.join('\n')}\n`);
    });
  const publish = addCommand(family, 'publish', 'Hand a signed proposal to control.');
  publish
    .argument('<proposal>', 'the file')
    .explain(['switchback trust publish pin.signed'], '`{documents: [{role, version}]}`')
    .action(async (file: string) => {
      const session = openSession(context, publish);
      const proposal = await readProposal(resolve(context.cwd, file));
      const { client } = await session.connect();
      const published = await client.call('trustPublish', { body: proposal });
      session.print(published, ({ documents }) =>
        documents.map(({ role, version }) => `${role} is at version ${version}\n`).join(''),
      );
    });
}
