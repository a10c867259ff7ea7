/**
 * Signing away from control: a change is made as a proposal, a file; whoever holds keys signs it on a machine of their own;
 * control accepts it when enough have. Format: docs/specs/trust.md, section 8.
 */
import * as v from 'valibot';
import { canonicalDocument, canonicalJson } from '#/bundle/canonical.ts';
import { verifyFast } from '#/bundle/ed25519.ts';
import { bytesOfHex, hexOf, type TufKey } from '#/bundle/keys.ts';
import { parseStrictJson } from '#/bundle/strict-json.ts';
import { checkShape } from '#/bundle/trust/documents.ts';
import { METADATA_MAX_BYTES } from '#/bundle/trust/metadata.ts';
import { type Role } from '#/bundle/trust/role.ts';
import { ed25519KeyOf } from '#/bundle/trust/rules.ts';
import { secondsAt } from '#/bundle/trust/shape.ts';
import { Problem } from '#/protocol/errors.ts';
import {
  type HeldKey,
  metaOf,
  nowSeconds,
  publishOnline,
  readCurrent,
  readFile,
  type Repository,
  type RepositoryFile,
  roleKeysOf,
  type RootDocument,
  type SignedDocument,
  type SignedFile,
  type TargetsDocument,
  withFiles,
} from './repository.ts';

export const PROPOSAL_MAX_BYTES = 16 * 1024 * 1024;

const proposalSchema = v.strictObject({
  schema: v.literal('switchback.proposal/1'),
  /** What the change is, in the words of who proposed it. */
  reason: v.pipe(v.string(), v.maxLength(1024)),
  files: v.pipe(
    v.array(
      v.strictObject({
        name: v.pipe(v.string(), v.regex(/^(metadata|targets)\/[A-Za-z0-9._/-]{1,512}$/)),
        base64: v.pipe(v.string(), v.maxLength(PROPOSAL_MAX_BYTES)),
      }),
    ),
    v.maxLength(256),
  ),
});
export type Proposal = v.InferOutput<typeof proposalSchema>;

/** Runs a change, `(repository) => files`, without needing its keys. What is at hand signs already. */
export function propose(
  repository: Repository,
  reason: string,
  change: (repository: Repository) => readonly RepositoryFile[],
): Proposal {
  const files = change({ ...repository, mayLackSignatures: true });
  return {
    schema: 'switchback.proposal/1',
    reason,
    // Snapshot and timestamp are made when it is accepted; the plain name of root is a copy.
    files: files
      .filter((file) => roleOf(file.name) !== null || file.name.startsWith('targets/'))
      .map((file) => ({ name: file.name, base64: Buffer.from(file.bytes).toString('base64') })),
  };
}

/** The bytes of a proposal file. */
export function encodeProposal(proposal: Proposal): Uint8Array {
  return canonicalDocument(proposal);
}

/** @throws Problem E_TOOBIG, E_PARSE, E_SCHEMA */
export function decodeProposal(bytes: Uint8Array): Proposal {
  return checkShape(
    'proposal',
    proposalSchema,
    parseStrictJson(bytes, { maxBytes: PROPOSAL_MAX_BYTES }),
  );
}

/** What a proposal would publish: for whoever is to sign it. */
export function proposedDocuments(proposal: Proposal): readonly {
  readonly role: string;
  readonly signed: SignedDocument;
  readonly keyIds: string[];
}[] {
  return proposal.files.flatMap((file) => {
    const role = roleOf(file.name);
    if (role === null) return [];
    const { signed, signatures } = readProposed(file);
    return [{ role, signed, keyIds: signatures.map((each) => each.keyid) }];
  });
}

/** The proposal with signatures of these keys over each of its documents of `roles`. */
export function signProposal(
  proposal: Proposal,
  keys: readonly HeldKey[],
  roles: readonly string[],
): Proposal {
  const files = proposal.files.map((file) => {
    const role = roleOf(file.name);
    if (role === null || !roles.includes(role)) return file;
    const { signed, signatures } = readProposed(file);
    const message = canonicalJson(signed);
    const added = keys.map(({ signer }) => ({
      keyid: signer.key.keyId,
      sig: hexOf(signer.sign(message)),
    }));
    const ids = new Set(added.map((each) => each.keyid));
    const kept = signatures.filter((each) => !ids.has(each.keyid));
    const bytes = canonicalDocument({ signed, signatures: [...kept, ...added] });
    return { name: file.name, base64: Buffer.from(bytes).toString('base64') };
  });
  return { ...proposal, files };
}

/**
 * The files of a proposal that enough have signed, with a new snapshot and timestamp.
 * @throws Problem E_SIGS (more signatures are needed), E_CONFLICT (the repository has moved on), E_EXPIRED
 */
export function acceptProposal(
  repository: Repository,
  proposal: Proposal,
): readonly RepositoryFile[] {
  const files: RepositoryFile[] = proposal.files.map((file) => ({
    name: file.name,
    bytes: Buffer.from(file.base64, 'base64'),
  }));
  const before = readCurrent(repository);
  const rootFile = files.find((file) => roleOf(file.name) === 'root');
  if (rootFile !== undefined) files.push({ ...rootFile, name: 'metadata/root.json' });
  const store = withFiles(repository.store, files);
  const root =
    rootFile === undefined ? before.root : readFile<RootDocument>(store, rootFile.name).signed;
  const targetsFile = files.find((file) => roleOf(file.name) === 'targets');
  const targets =
    targetsFile === undefined
      ? before.targets
      : readFile<TargetsDocument>(store, targetsFile.name).signed;
  const meta = { ...before.snapshot?.meta };
  for (const file of files) {
    const role = roleOf(file.name);
    if (role === null) continue;
    const proposed = readFile<SignedDocument>(store, file.name);
    const version = role === 'root' ? before.root.version : (meta[`${role}.json`]?.version ?? 0);
    requireNext(repository, role, proposed.signed, version);
    const keys = role === 'root' || role === 'targets' ? root.keys : targets.delegations?.keys;
    requireSigned(role, proposed, roleKeysOf(root, targets, role), keys ?? {});
    if (role === 'root') {
      requireSigned(role, proposed, roleKeysOf(before.root, targets, role), before.root.keys);
    } else {
      meta[`${role}.json`] = metaOf(proposed.signed.version, file.bytes);
    }
  }
  const next = { ...repository, store };
  return [...files, ...publishOnline(next, { ...before, root, targets }, meta)];
}

function requireNext(
  repository: Repository,
  role: string,
  signed: SignedDocument,
  version: number,
): void {
  if (signed.version !== version + 1) {
    throw new Problem(
      'E_CONFLICT',
      `${role} is at version ${version}, the proposal has ${signed.version}: propose it anew`,
      { role, version, proposed: signed.version },
    );
  }
  if (secondsAt(signed.expires, role) <= nowSeconds(repository)) {
    throw new Problem('E_EXPIRED', `the proposed ${role} expired at ${signed.expires}`, { role });
  }
}

function requireSigned(
  role: string,
  file: SignedFile<SignedDocument>,
  roleKeys: Role,
  keys: Readonly<Record<string, TufKey>>,
): void {
  const message = canonicalJson(file.signed);
  const signedBy = new Set<string>();
  for (const { keyid, sig } of file.signatures) {
    const key = roleKeys.keyIds.includes(keyid) ? keys[keyid] : undefined;
    const bytes = key === undefined ? null : ed25519KeyOf(key);
    const signature = bytesOfHex(sig, 64);
    if (bytes === null || signature === null) continue;
    if (verifyFast(message, signature, bytes)) signedBy.add(hexOf(bytes));
  }
  if (signedBy.size < roleKeys.threshold) {
    throw new Problem(
      'E_SIGS',
      `${role} has ${signedBy.size} valid signatures, ${roleKeys.threshold} needed`,
      { role, valid: signedBy.size, threshold: roleKeys.threshold, keyIds: [...roleKeys.keyIds] },
    );
  }
}

/** The role of `metadata/<version>.<role>.json`; null for targets, snapshot, timestamp and the plain root. */
function roleOf(name: string): string | null {
  const role = /^metadata\/[0-9]+\.([a-z0-9-]+)\.json$/.exec(name)?.[1] ?? null;
  return role === 'snapshot' || role === 'timestamp' ? null : role;
}

function readProposed(file: Proposal['files'][number]): SignedFile<SignedDocument> {
  const bytes = Buffer.from(file.base64, 'base64');
  const store = { read: () => bytes };
  if (bytes.length > METADATA_MAX_BYTES.targets) {
    throw new Problem('E_TOOBIG', `${file.name} has ${bytes.length} bytes`, { name: file.name });
  }
  return readFile<SignedDocument>(store, file.name);
}
