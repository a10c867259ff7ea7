/** A proposal in words: everything that whoever signs it vouches for. */
import { hexOf } from '#/bundle/keys.ts';
import { parseStrictJson } from '#/bundle/strict-json.ts';
import { harmless } from '#/control/cli/render/text.ts';
import { proposedDocuments, missingSignatures } from '#/control/trust/proposal.ts';
import { type SignedDocument, targetFileName } from '#/control/trust/repository.ts';
import { desiredDocument } from '#/protocol/documents.ts';
import { isProblem } from '#/protocol/errors.ts';
import type { Proposal } from '#/protocol/proposal.ts';
import * as v from 'valibot';

const PIN_MAX_BYTES = 64 * 1024;
/** Digits of a key id that people compare. */
const SHOWN_DIGITS = 16;

/** One line each: the documents, what they say, and who still has to sign. Safe for a terminal. */
export function proposalLines(proposal: Proposal): readonly string[] {
  const files = new Map(
    proposal.files.map((file) => [file.name, Buffer.from(file.base64, 'base64')] as const),
  );
  const lines = proposedDocuments(proposal).flatMap(({ role, signed, keyIds }) => [
    `${role}, version ${signed.version}, good until ${signed.expires}, signed by ${shown(keyIds)}`,
    ...contentLines(signed, files).map((line) => `    ${line}`),
  ]);
  const missing = missingSignatures(proposal).map(
    ({ role, missing: count }) =>
      `${role}: ${count} more ${count === 1 ? 'signature' : 'signatures'} needed`,
  );
  return [`reason: ${proposal.reason}`, ...lines, ...missing].map(harmless);
}

const shown = (keyIds: readonly string[]): string =>
  keyIds.length === 0 ? 'nobody' : keyIds.map((id) => id.slice(0, SHOWN_DIGITS)).join(', ');

function contentLines(
  signed: SignedDocument,
  files: ReadonlyMap<string, Uint8Array>,
): readonly string[] {
  if (signed._type === 'root')
    return Object.entries(signed.roles).map(
      ([role, { keyids, threshold }]) => `${role}: ${threshold} of ${shown(keyids)}`,
    );
  if (signed._type !== 'targets') return [];
  const delegations = signed.delegations?.roles ?? [];
  return [
    ...delegations.map(
      ({ name, keyids, threshold, paths }) =>
        `${name} for ${paths.join(', ')}: ${threshold} of ${shown(keyids)}`,
    ),
    ...Object.entries(signed.targets).map(([path, target]) => {
      const bytes = files.get(targetFileName(path, target.hashes.sha256));
      return `${path}${bytes === undefined ? '' : pinWords(bytes)}`;
    }),
  ];
}

/** What a pin says; nothing for other documents. */
function pinWords(bytes: Uint8Array): string {
  try {
    const pin = v.safeParse(desiredDocument, parseStrictJson(bytes, { maxBytes: PIN_MAX_BYTES }));
    if (!pin.success) return '';
    const { seq, artifact, config, reason } = pin.output;
    const beside =
      config === undefined
        ? ''
        : ` with config ${config.scope}/${config.version} (${config.configId})`;
    return `: pin ${seq} to ${artifact.class}/${artifact.version} (${artifact.artifactId})${beside}: ${reason}`;
  } catch (error) {
    if (isProblem(error)) return `: not readable (${hexOf(bytes.slice(0, 8))}…)`;
    throw error;
  }
}
