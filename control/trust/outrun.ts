/**
 * After control was restored from a backup: hosts may have seen metadata that the backup does not have, and refuse what is older
 * (E_ROLLBACK). Everything that the keys at hand can sign is signed anew, with versions that were never published (F73).
 */
import type { Role } from '#/bundle/trust/role.ts';
import {
  canSign,
  expiry,
  metaOf,
  publishOnline,
  readCurrent,
  type Repository,
  type RepositoryFile,
  roleDocumentIn,
  roleKeysOf,
  signDocument,
} from './repository.ts';

/**
 * The lowest number that no version and no seq had before: the time in seconds. Each publication takes one number and there was
 * less than one a second, so what counts up from an earlier such number never gets there first.
 */
export function outrunning(nowMs: number): number {
  return Math.floor(nowMs / 1000);
}

/**
 * Timestamp, snapshot and every targets role whose keys are at hand, unchanged, at versions above all that were published. Roles
 * whose keys are elsewhere stay as they are: their operators publish what they signed since. Nothing without the online keys.
 */
export function outrun(repository: Repository): readonly RepositoryFile[] {
  const current = readCurrent(repository);
  const { root, snapshot, timestamp, targets } = current;
  const keysOf = (role: string): Role => roleKeysOf(root, targets, role);
  const isAtHand = (role: string): boolean => canSign(repository, keysOf(role));
  if (snapshot === null || timestamp === null) return [];
  if (!isAtHand('snapshot') || !isAtHand('timestamp')) return [];
  const lowest = outrunning(repository.nowMs);
  const meta = { ...snapshot.meta };
  const files: RepositoryFile[] = [];
  for (const role of ['targets', ...(targets.delegations?.roles ?? []).map(({ name }) => name)]) {
    const document = role === 'targets' ? targets : roleDocumentIn(repository, current, role);
    if (document.version === 0 || !isAtHand(role)) continue;
    const version = Math.max(document.version + 1, lowest);
    const expires = expiry(repository, role === 'targets' ? 'targets' : 'delegated');
    const bytes = signDocument({ ...document, version, expires }, keysOf(role), repository.keys);
    meta[`${role}.json`] = metaOf(version, bytes);
    files.push({ name: `metadata/${version}.${role}.json`, bytes });
  }
  // The next versions are one above these.
  const before = <T extends { version: number }>(document: T): T => ({
    ...document,
    version: Math.max(document.version, lowest - 1),
  });
  const next = { ...current, snapshot: before(snapshot), timestamp: before(timestamp) };
  return [...files, ...publishOnline(repository, next, meta)];
}
