/** Targets of one role, and the small documents among them. docs/specs/trust.md, section 6. */
import { isProblem, Problem } from '#/protocol/errors.ts';
import { findTarget, type FoundTarget, type Session, targetFileName } from './client.ts';
import { DOCUMENT_MAX_BYTES } from './documents.ts';
import type { TargetEntry } from './metadata.ts';
import { requireDigests, type TrustedSet } from './trusted-set.ts';

/** A session whose `replace` and `read` also keep the small documents of the policy. */
export interface Documents {
  /** Bytes of a target from the cache of documents, or null. They are checked like fetched ones. */
  read(path: string): Promise<Uint8Array | null>;
  replace(path: string, bytes: Uint8Array): Promise<void>;
}

/** A target from exactly this role. @throws Problem E_NOTARGET */
export async function findIn(
  set: TrustedSet,
  path: string,
  role: string,
  session: Session,
): Promise<FoundTarget> {
  const found = await findTarget(set, path, session);
  if (found.role !== role) {
    throw new Problem('E_NOTARGET', `${path} is listed by ${found.role}, only ${role} may`, {
      path,
      role: found.role,
    });
  }
  return found;
}

/** As findIn; null when no role vouches for it. */
export async function findOptional(
  set: TrustedSet,
  path: string,
  role: string,
  session: Session,
): Promise<FoundTarget | null> {
  try {
    return await findIn(set, path, role, session);
  } catch (error) {
    if (isProblem(error, 'E_NOTARGET')) return null;
    throw error;
  }
}

/** A small document: from the cache when it has the signed digest, else fetched and kept. */
export async function documentOf(
  found: FoundTarget,
  session: Session,
  documents: Documents,
): Promise<Uint8Array> {
  const cached = await documents.read(found.target.path);
  if (cached !== null && hasDigests(found.target, cached)) return cached;
  const bytes = await fetchTarget(found, session, DOCUMENT_MAX_BYTES);
  await documents.replace(found.target.path, bytes);
  return bytes;
}

function hasDigests(target: TargetEntry, bytes: Uint8Array): boolean {
  try {
    requireDigests(target.path, bytes, target);
    return true;
  } catch (error) {
    if (isProblem(error, 'E_HASH')) return false;
    throw error;
  }
}

/** A target's bytes, never more than were signed. @throws Problem E_TOOBIG, E_HASH, E_HTTP */
export async function fetchTarget(
  found: FoundTarget,
  session: Session,
  maxBytes: number,
): Promise<Uint8Array> {
  const { target } = found;
  if (target.length > maxBytes) {
    throw new Problem('E_TOOBIG', `${target.path} has ${target.length} bytes, at most ${maxBytes}`);
  }
  const name = targetFileName(found.set, target);
  const bytes = await session.fetch.target(name, target.length);
  if (bytes === null) throw new Problem('E_HTTP', `the repository has no target ${name}`);
  requireDigests(target.path, bytes, target);
  return bytes;
}
