/** `switchback trust …`. `status`: which keys sign what, until when, and what is not protected, from what control publishes. */
import type { CliContext } from '#/control/cli/context.ts';
import { addCommand, addFamily, type DescribedCommand } from '#/control/cli/describe.ts';
import { renderTable } from '#/control/cli/render/table.ts';
import { harmless } from '#/control/cli/render/text.ts';
import { openSession } from '#/control/cli/session.ts';
import { overPublished } from '#/control/cli/trust/published.ts';
import { trustStatus } from '#/control/trust/starter.ts';
import { addTrustChanges } from './trust-change.ts';
import { addPolicyDocument, addTrustKeysList } from './trust-policy.ts';
import { addTrustKeyCommands } from './trust-keys.ts';
import { addSignedPin, addSignedUnpin } from './trust-pin.ts';
import { addTrustSigning } from './trust-sign.ts';

export function addTrustCommands(program: DescribedCommand, context: CliContext): void {
  const family = addFamily(program, 'trust', 'Trust: which keys sign what.');
  addTrustKeyCommands(family, context);
  addStatus(family, context);
  addTrustChanges(family, context);
  addSignedPin(family, context);
  addSignedUnpin(family, context);
  addTrustSigning(family, context);
  addPolicyDocument(family, context);
  addTrustKeysList(family, context);
}

function addStatus(family: DescribedCommand, context: CliContext): void {
  const command = addCommand(
    family,
    'status',
    'Show roles, keys, expiry, and which protections are off.',
  );
  command
    .explain(
      ['switchback trust status'],
      '`{roles: [{role, threshold, keyIds, heldKeyIds, version, expires, hasExpired}], signers: [{document, signs, threshold, keyIds, heldKeyIds}], protectionsOff: [text]}`',
    )
    .action(async () => {
      const session = openSession(context, command);
      const { client } = await session.connect();
      const { keys } = await client.call('trustKeys', {});
      const held = keys.map((key) => key.keyId);
      const nowMs = context.now();
      const overview = await overPublished(client, (store) =>
        trustStatus({ store, keys: [], nowMs }, held),
      );
      session.print(overview, ({ roles, signers, protectionsOff }) => {
        const table = renderTable(
          roles,
          [
            { title: 'ROLE', value: (role) => role.role },
            { title: 'NEEDS', value: (role) => `${role.threshold} of ${role.keyIds.length}` },
            {
              title: 'HELD',
              value: (role) => String(role.heldKeyIds.length),
            },
            { title: 'VERSION', value: (role) => String(role.version), align: 'right' },
            {
              title: 'EXPIRES',
              value: (role) => role.expires,
              tone: (role) => (role.hasExpired ? 'bad' : 'plain'),
            },
            {
              title: 'KEYS',
              value: (role) => role.keyIds.map((key) => key.slice(0, 12)).join(', '),
              flexible: true,
            },
          ],
          session.style,
          'no roles',
        );
        const named = renderTable(
          signers,
          [
            { title: 'SIGNS', value: (signer) => harmless(signer.signs) },
            { title: 'NEEDS', value: (signer) => `${signer.threshold} of ${signer.keyIds.length}` },
            { title: 'HELD', value: (signer) => String(signer.heldKeyIds.length) },
            { title: 'NAMED IN', value: (signer) => signer.document },
            {
              title: 'KEYS',
              value: (signer) => signer.keyIds.map((key) => key.slice(0, 12)).join(', '),
              flexible: true,
            },
          ],
          session.style,
          'no other keys',
        );
        const off = protectionsOff.map(
          (text) => `  ${session.style.paint('warn', harmless(text))}\n`,
        );
        return `${table}\n${named}\nnot protected:\n${off.length === 0 ? '  nothing\n' : off.join('')}`;
      });
    });
}
