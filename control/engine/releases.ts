/** Releases: admission of a verified bundle or of a reference, and revocation. */
import type { Release } from '#/control/core/model.ts';
import { addRelease, revoke } from '#/control/trust/targets.ts';
import type { Envelope } from '#/protocol/documents.ts';
import { Problem } from '#/protocol/errors.ts';
import type { ArtifactId } from '#/protocol/ids.ts';
import { type Desk, repositoryOf } from './desk.ts';
import type { Draft } from './draft.ts';
import { keepBundled } from './gates.ts';

export interface Admission {
  readonly manifestBytes: Uint8Array;
  readonly envelope: Envelope;
  readonly sources: readonly string[];
  /** Size of the file that control holds, or null. */
  readonly bundleBytes: number | null;
  /** Statements that came with it. */
  readonly attestations?: readonly Envelope[];
}

/**
 * Lists the manifest in the signed targets and admits the release. Doing it again adds sources and changes nothing else.
 * The manifest's signatures are checked against the builders of the policy.
 */
export function admitRelease(desk: Desk, admission: Admission, actor: string): Promise<Release> {
  return desk.engine.change(async (draft) => {
    const added = addRelease(
      repositoryOf(desk, draft),
      admission.manifestBytes,
      admission.envelope,
    );
    const { manifest, ref } = added;
    const before = draft.fleet.releases.get(ref.artifactId);
    if (before?.revoked != null)
      throw new Problem('E_REVOKED', `${before.version} was revoked: ${before.revoked.reason}`);
    const sources = [...new Set([...(before?.sources ?? []), ...admission.sources])].slice(0, 16);
    const release: Release = {
      artifactId: ref.artifactId,
      name: manifest.name,
      class: manifest.class,
      arch: manifest.arch,
      version: manifest.version,
      release: manifest.release,
      sizeBytes: manifest.payloads.reduce((sum, payload) => sum + payload.sizeBytes, 0),
      bundleBytes: admission.bundleBytes ?? before?.bundleBytes ?? null,
      revoked: null,
      sources,
      signers: admission.envelope.signatures.map((signature) => signature.keyid),
      importedAtMs: before?.importedAtMs ?? draft.now,
      importedBy: before?.importedBy ?? actor,
    };
    if (before === undefined) await draft.publish(added.files);
    await draft.putRelease(release);
    if (before === undefined || before.sources.length !== sources.length)
      await draft.audit(actor, 'release.import', `release/${ref.artifactId}`, {
        class: release.class,
        version: release.version,
        release: release.release,
        signers: [...release.signers],
        sources: [...sources],
      });
    await keepBundled(desk, draft, release, admission.attestations ?? [], actor);
    return release;
  });
}

/** Never offered again; the signed revocation tells the hosts themselves. */
export function revokeRelease(
  desk: Desk,
  id: ArtifactId,
  reason: string,
  actor: string,
): Promise<Release> {
  return desk.engine.change(async (draft) => {
    const release = draft.release(id);
    if (release.revoked !== null) return release;
    await draft.publish(revoke(repositoryOf(desk, draft), { artifacts: [id] }));
    return keepRevocation(draft, release, reason, actor);
  });
}

/** The release is revoked from here on; the signed revocation is published in the same change. */
export async function keepRevocation(
  draft: Draft,
  release: Release,
  reason: string,
  actor: string,
): Promise<Release> {
  const next = { ...release, revoked: { reason, actor, atMs: draft.now } };
  await draft.putRelease(next);
  // Everybody looks again: offers of it are taken back, rollouts of it halt.
  await draft.raiseFleetGeneration();
  await draft.audit(actor, 'release.revoke', `release/${release.artifactId}`, {
    reason,
    version: release.version,
  });
  return next;
}
