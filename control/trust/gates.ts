/** Gates and attestations in the repository: what the policy role signed of them, and the statements about a release. */
import { canonicalDocument } from '#/bundle/canonical.ts';
import { sha256 } from '#/bundle/keys.ts';
import { POLICY_ROLE, readDocument } from '#/bundle/trust/documents.ts';
import {
  ATTESTERS_PATH,
  type AttestersDocument,
  attestersDocument,
  GATES_PATH,
  type GatesDocument,
  gatesDocument,
} from '#/bundle/trust/gates.ts';
import type { ArtifactRef, Envelope } from '#/protocol/documents.ts';
import { Problem } from '#/protocol/errors.ts';
import { encodeEnvelope } from '#/bundle/dsse.ts';
import { addAttestRole, hasRole } from './delegations.ts';
import {
  publish,
  putTarget,
  readRoleDocument,
  readTarget,
  type Repository,
  type RepositoryFile,
  withFiles,
} from './repository.ts';
import { setPolicy } from './targets.ts';

/** Names who may attest what. */
export function setAttesters(
  repository: Repository,
  document: AttestersDocument,
): readonly RepositoryFile[] {
  return setPolicy(repository, ATTESTERS_PATH, canonicalDocument(document), attestersDocument);
}

/** Sets the rules, who judges by them, and where hosts demand a verdict. */
export function setGates(
  repository: Repository,
  document: GatesDocument,
): readonly RepositoryFile[] {
  return setPolicy(repository, GATES_PATH, canonicalDocument(document), gatesDocument);
}

/** The rules and their digest, as verdicts name it; null without gates. */
export function readGates(
  repository: Repository,
): { readonly gates: GatesDocument; readonly digest: string } | null {
  const bytes = policyBytes(repository, GATES_PATH);
  if (bytes === null) return null;
  return { gates: readDocument(GATES_PATH, gatesDocument, bytes), digest: sha256(bytes) };
}

/** Who may attest what; nobody while the policy does not say. */
export function readAttesters(repository: Repository): AttestersDocument {
  const bytes = policyBytes(repository, ATTESTERS_PATH);
  if (bytes === null) return { schema: 'switchback.attesters/1', attesters: [] };
  return readDocument(ATTESTERS_PATH, attestersDocument, bytes);
}

function policyBytes(repository: Repository, path: string): Uint8Array | null {
  return readTarget(repository, readRoleDocument(repository, POLICY_ROLE), path);
}

/** The role that vouches for the statements about artifacts of the class. */
function attestRole(imageClass: string): string {
  return `attest-${imageClass}`;
}

/** Target path of the statements about an artifact, one envelope a line. */
function attestationsPath(ref: Pick<ArtifactRef, 'class' | 'version' | 'artifactId'>): string {
  return `attest/${ref.class}/${ref.version}/${ref.artifactId}.intoto.jsonl`;
}

/**
 * The statements about an artifact that the role lists, as lines. @throws Problem E_HASH when they are not the bytes that were
 * signed: a line that was taken away or put back shows (C10)
 */
export function readAttestations(
  repository: Repository,
  ref: Pick<ArtifactRef, 'class' | 'version' | 'artifactId'>,
): readonly string[] {
  const role = attestRole(ref.class);
  if (!hasRole(repository, role)) return [];
  const path = attestationsPath(ref);
  const document = readRoleDocument(repository, role);
  const entry = document.targets[path];
  if (entry === undefined) return [];
  const bytes = readTarget(repository, document, path);
  if (bytes === null || bytes.length !== entry.length || sha256(bytes) !== entry.hashes.sha256) {
    throw new Problem('E_HASH', `${path} is not what was signed`, { path });
  }
  return linesOf(bytes);
}

function linesOf(bytes: Uint8Array): readonly string[] {
  return Buffer.from(bytes)
    .toString('utf8')
    .split('\n')
    .filter((line) => line !== '');
}

/** Adds statements to those that are listed; those that are there already are not listed twice. Empty when none is new. */
export function addAttestations(
  repository: Repository,
  ref: Pick<ArtifactRef, 'class' | 'version' | 'artifactId'>,
  envelopes: readonly Envelope[],
): readonly RepositoryFile[] {
  const before = readAttestations(repository, ref);
  const given = envelopes.map((each) => Buffer.from(encodeEnvelope(each)).toString('utf8'));
  const lines = [...new Set([...before, ...given])];
  if (lines.length === before.length) return [];
  const role = attestRole(ref.class);
  const added = hasRole(repository, role) ? [] : addAttestRole(repository, ref.class);
  const extended = { ...repository, store: withFiles(repository.store, added) };
  const document = readRoleDocument(extended, role);
  const bytes = Buffer.from(lines.map((line) => `${line}\n`).join(''), 'utf8');
  const file = putTarget(document, attestationsPath(ref), bytes);
  const files = [...added, ...publish(extended, new Map([[role, document]]), [file])];
  return [...new Map(files.map((each) => [each.name, each])).values()];
}
