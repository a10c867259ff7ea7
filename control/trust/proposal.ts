/**
 * Signing away from control: a change is made as a proposal, a file; whoever holds keys signs it on a machine of their own;
 * control accepts it when enough have. Format: docs/specs/trust.md, section 8.
 */
import { canonicalDocument, canonicalJson } from '#/bundle/canonical.ts';
import { verifyFast } from '#/bundle/ed25519.ts';
import { bytesOfHex, hexOf, sha256, type TufKey } from '#/bundle/keys.ts';
import { parseStrictJson } from '#/bundle/strict-json.ts';
import { checkShape } from '#/bundle/trust/documents.ts';
import { decodeMetadata } from '#/bundle/trust/metadata.ts';
import { type Role } from '#/bundle/trust/role.ts';
import { agentRules, ed25519KeyOf } from '#/bundle/trust/rules.ts';
import { secondsAt } from '#/bundle/trust/shape.ts';
import { Problem } from '#/protocol/errors.ts';
import { type Proposal, PROPOSAL_MAX_BYTES, proposalDocument } from '#/protocol/proposal.ts';
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
  targetFileName,
  type TargetsDocument,
  withFiles,
} from './repository.ts';

/** Runs a change, `(repository) => files`, without needing its keys. What is at hand signs already. */
export function propose(
  repository: Repository,
  reason: string,
  change: (repository: Repository) => readonly RepositoryFile[],
): Proposal {
  const made = change({ ...repository, mayLackSignatures: true });
  // Snapshot and timestamp are made when it is accepted; the plain name of root is a copy.
  const files = made.filter(
    (file) => roleOf(file.name) !== null || file.name.startsWith('targets/'),
  );
  return {
    schema: 'switchback.proposal/1',
    reason,
    needs: needsOf(repository, files),
    files: [...files, ...pinsBeside(repository, files)].map((file) => ({
      name: file.name,
      base64: Buffer.from(file.bytes).toString('base64'),
    })),
  };
}

/** Signers of each document: of a root those before and those after. */
function needsOf(repository: Repository, files: readonly RepositoryFile[]): Proposal['needs'] {
  const before = readCurrent(repository);
  const { root, targets } = after(repository, before, files);
  return files.flatMap((file) => {
    const role = roleOf(file.name);
    if (role === null) return [];
    const roles = [roleKeysOf(root, targets, role)];
    if (role === 'root') roles.unshift(roleKeysOf(before.root, targets, role));
    return roles.map(({ threshold, keyIds }) => ({ role, threshold, keyIds: [...keyIds] }));
  });
}

/** Pins that stand in a changed role and stay: whoever signs the role signs them too, and must see them. */
function pinsBeside(
  repository: Repository,
  files: readonly RepositoryFile[],
): readonly RepositoryFile[] {
  const there = new Set(files.map((file) => file.name));
  return files.flatMap((file) => {
    if (roleOf(file.name)?.startsWith('grp-') !== true) return [];
    const { signed } = readFile<TargetsDocument>({ read: () => file.bytes }, file.name);
    return Object.entries(signed.targets).flatMap(([path, target]) => {
      const name = targetFileName(path, target.hashes.sha256);
      const bytes = there.has(name) ? null : repository.store.read(name);
      return bytes === null ? [] : [{ name, bytes }];
    });
  });
}

interface After {
  readonly root: RootDocument;
  readonly targets: TargetsDocument;
}

/** Root and targets as they are once these files are published. */
function after(
  repository: Repository,
  before: After,
  files: readonly { readonly name: string; readonly bytes: Uint8Array }[],
): After {
  const store = withFiles(repository.store, files);
  const named = (role: string): string | undefined =>
    files.find((file) => roleOf(file.name) === role)?.name;
  const [rootName, targetsName] = [named('root'), named('targets')];
  return {
    root: rootName === undefined ? before.root : readFile<RootDocument>(store, rootName).signed,
    targets:
      targetsName === undefined
        ? before.targets
        : readFile<TargetsDocument>(store, targetsName).signed,
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
    proposalDocument,
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

/** The proposal signed by those of the keys that its documents need, and how many signatures that made. */
export function signNeeded(
  proposal: Proposal,
  keys: readonly HeldKey[],
): { readonly proposal: Proposal; readonly signatures: number } {
  let signed = proposal;
  let signatures = 0;
  for (const role of new Set(proposal.needs.map((need) => need.role))) {
    const wanted = new Set(
      proposal.needs.filter((need) => need.role === role).flatMap((need) => need.keyIds),
    );
    const mine = keys.filter((key) => wanted.has(key.signer.key.keyId));
    signatures += new Set(mine.map((key) => key.signer.key.keyId)).size;
    signed = signProposal(signed, mine, [role]);
  }
  return { proposal: signed, signatures };
}

/** Signatures that are still missing, by role. Counted, not verified: for people. */
export function missingSignatures(
  proposal: Proposal,
): readonly { readonly role: string; readonly missing: number }[] {
  const signers = new Map(
    proposedDocuments(proposal).map(({ role, keyIds }) => [role, new Set(keyIds)] as const),
  );
  return proposal.needs.flatMap(({ role, threshold, keyIds }) => {
    const have = keyIds.filter((keyId) => signers.get(role)?.has(keyId) === true).length;
    return have >= threshold ? [] : [{ role, missing: threshold - have }];
  });
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
  requireListed(files);
  const { root, targets } = after(repository, before, files);
  const rootFile = files.find((file) => roleOf(file.name) === 'root');
  if (rootFile !== undefined) files.push({ ...rootFile, name: 'metadata/root.json' });
  const store = withFiles(repository.store, files);
  const meta = { ...before.snapshot?.meta };
  for (const file of files) {
    const role = roleOf(file.name);
    if (role === null) continue;
    const proposed = readFile<SignedDocument>(store, file.name);
    const version = role === 'root' ? before.root.version : (meta[`${role}.json`]?.version ?? 0);
    requireNext(repository, role, proposed.signed, version);
    requireTargets(store, proposed.signed);
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

/** Every file is a document under its own name and version, or a target that one of the documents lists. */
function requireListed(files: readonly RepositoryFile[]): void {
  const listed = new Set<string>();
  const seen = new Set<string>();
  for (const file of files) {
    if (seen.has(file.name)) throw refusedFile(file.name, 'stands twice');
    seen.add(file.name);
    const role = roleOf(file.name);
    if (role === null) continue;
    const { signed } = readDocumentFile(file.name, role, file.bytes);
    if (file.name !== `metadata/${signed.version}.${role}.json`)
      throw refusedFile(file.name, `holds ${signed._type} ${signed.version}`);
    if (signed._type !== 'targets') continue;
    for (const [path, target] of Object.entries(signed.targets))
      listed.add(targetFileName(path, target.hashes.sha256));
  }
  for (const file of files) {
    if (roleOf(file.name) !== null) continue;
    if (!listed.has(file.name)) throw refusedFile(file.name, 'is listed by none of its documents');
  }
}

function refusedFile(name: string, why: string): Problem {
  return new Problem('E_SCHEMA', `proposal: ${name} ${why}`, { name });
}

/** What a document lists is there, byte for byte: hosts would be refused what they are promised. */
function requireTargets(store: Repository['store'], signed: SignedDocument): void {
  if (signed._type !== 'targets') return;
  for (const [path, target] of Object.entries(signed.targets)) {
    const bytes = store.read(targetFileName(path, target.hashes.sha256));
    if (bytes === null)
      throw new Problem('E_NOT_FOUND', `proposal: ${path} is not in it`, { path });
    if (bytes.length !== target.length || sha256(bytes) !== target.hashes.sha256)
      throw new Problem('E_HASH', `proposal: ${path} has other bytes than listed`, { path });
  }
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
  return readDocumentFile(file.name, roleOf(file.name), Buffer.from(file.base64, 'base64'));
}

/** A document from outside, in a form that every host reads. @throws Problem E_TOOBIG, E_PARSE, E_SCHEMA, E_TYPE, E_VERSION, … */
function readDocumentFile(
  name: string,
  role: string | null,
  bytes: Uint8Array,
): SignedFile<SignedDocument> {
  if (role === 'root') decodeMetadata('root', bytes, agentRules);
  else decodeMetadata('targets', bytes, agentRules);
  return readFile<SignedDocument>({ read: () => bytes }, name);
}
