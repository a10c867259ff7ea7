/** Versions of the simulated service: real manifests, signed, and what happens when one of them runs. */
import { canonicalDocument } from '#/bundle/canonical.ts';
import { sha256 } from '#/bundle/keys.ts';
import type { ArtifactId } from '#/protocol/ids.ts';
import { version, type Version } from '#/test/support/sim-host/versions.ts';

/**
 * `good`; `bad`: never healthy; `never-starts`: its processes do not come up; `dies-soon`: healthy at first, fails in the
 * soak; `rots`: healthy through its trial, fails much later, so that an operator has to go back.
 */
export type Kind = 'good' | 'bad' | 'never-starts' | 'dies-soon' | 'rots';
export const badKinds: readonly Kind[] = ['bad', 'never-starts', 'dies-soon', 'rots'];

export interface SimVersion extends Version {
  readonly release: number;
  readonly kind: Kind;
}

/** Longer than the soak. */
const SLOW_START_MS = 20_000;
const DIES_AFTER_MS = 6_000;
const ROTS_AFTER_MS = 15 * 60_000;

/** Release `release` of the service. */
export function simVersion(release: number, kind: Kind): SimVersion {
  const base = version(release, kind === 'good' || kind === 'rots');
  // The first failures of a service that takes its time count for nothing: only a check that passed lets it be committed.
  const health = base.manifest.health.map((check) => ({ ...check, startAfterMs: SLOW_START_MS }));
  const manifest = {
    ...base.manifest,
    health,
    trial: { ...base.manifest.trial, soakMs: 10_000, deadlineMs: 120_000 },
  };
  const manifestBytes = canonicalDocument(manifest);
  const artifactId = sha256(manifestBytes) as ArtifactId;
  return { ...base, manifest, manifestBytes, artifactId, release, kind };
}

/** Whether the checks of a version pass, so long after it was started. */
export function isHealthy(of: SimVersion, ranMs: number): boolean {
  switch (of.kind) {
    case 'good':
      return true;
    case 'bad':
    case 'never-starts':
      return false;
    case 'dies-soon':
      return ranMs < DIES_AFTER_MS;
    case 'rots':
      return ranMs < ROTS_AFTER_MS;
  }
}

/** Whether it may ever be committed. */
export function isFit(of: SimVersion): boolean {
  return of.kind === 'good' || of.kind === 'rots';
}
