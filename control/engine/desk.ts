/** What every operation of an operator needs: the engine, the keys that control holds, randomness. */
import type { Signer } from '#/bundle/keys.ts';
import type { HeldKey, Repository } from '#/control/trust/repository.ts';
import { Problem } from '#/protocol/errors.ts';
import type { ArtifactRef } from '#/protocol/documents.ts';
import { manifestPath } from '#/bundle/trust/documents.ts';
import type { Release } from '#/control/core/model.ts';
import type { Draft } from './draft.ts';
import type { Engine } from './engine.ts';

export interface Desk {
  readonly engine: Engine;
  readonly keys: readonly HeldKey[];
  /** Signs host statements. */
  readonly enrolment: Signer;
  /** Signs checkpoints of the audit log; null: control holds no such key. */
  readonly logKey: Signer | null;
  /** Signs verdicts of the policy gates; null: control holds no such key. */
  readonly gateKey: Signer | null;
  /** Fresh random bytes. */
  readonly random: (bytes: number) => Uint8Array;
}

/** The TUF repository as this change sees it. */
export function repositoryOf(desk: Desk, draft: Draft): Repository {
  return { store: { read: (name) => draft.trustFile(name) }, keys: desk.keys, nowMs: draft.now };
}

/** A release as signed documents name it. */
export function refOf(release: Release): ArtifactRef {
  const { artifactId, version } = release;
  const path = manifestPath({ class: release.class, version, artifactId });
  return { artifactId, class: release.class, version, release: release.release, path };
}

/** An id of 16 random hex digits with a prefix. */
export function freshId(desk: Desk, prefix: string): string {
  return `${prefix}-${Buffer.from(desk.random(8)).toString('hex')}`;
}

export function notAllowedNow(message: string): Problem {
  return new Problem('E_NOT_ALLOWED_NOW', message);
}
