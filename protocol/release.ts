/** Releases: bundles that were imported, by artifact id. Immutable; only their state changes. */
import * as v from 'valibot';
import { envelope } from './documents.ts';
import { artifactId, name } from './ids.ts';
import { atMs, positive, whole } from './scalars.ts';

export const BUNDLE_MEDIA_TYPE = 'application/vnd.switchback.bundle';

/** Import without the bytes: hosts fetch the bundle from the sources. */
export const referenceRequest = v.strictObject({
  /** The exact bytes of manifest.json, base64: their sha256 is the artifact id. */
  manifest: v.pipe(v.string(), v.base64(), v.maxLength(1_400_000)),
  /** manifest.dsse.json. */
  envelope,
  /** http or https addresses of the bundle file, best first. */
  sources: v.pipe(
    v.array(v.pipe(v.string(), v.url(), v.regex(/^https?:\/\//), v.maxLength(2048))),
    v.minLength(1),
    v.maxLength(16),
  ),
});
export type ReferenceRequest = v.InferOutput<typeof referenceRequest>;

/** Statements in DSSE envelopes. */
export const attestRequest = v.strictObject({
  statements: v.pipe(v.array(envelope), v.minLength(1), v.maxLength(64)),
});

export const releaseView = v.strictObject({
  artifactId,
  name,
  class: name,
  arch: v.string(),
  version: v.string(),
  release: positive,
  /** Bytes of content on the host. */
  sizeBytes: whole,
  /** Bytes of the bundle file, null when it is held elsewhere. */
  bundleBytes: v.nullable(whole),
  state: v.picklist(['allowed', 'revoked']),
  revokedReason: v.nullable(v.string()),
  sources: v.array(v.string()),
  /** Key ids whose signature over the manifest was verified at import. */
  signers: v.array(v.string()),
  importedAtMs: atMs,
  importedBy: v.string(),
  hostsRunning: whole,
  /** Groups that are pinned to it. */
  pinnedBy: v.array(v.string()),
});
export type ReleaseView = v.InferOutput<typeof releaseView>;

/** A patch that control serves beside a bundle. */
export const patchView = v.strictObject({
  from: artifactId,
  to: artifactId,
  patchBytes: whole,
});
export type PatchView = v.InferOutput<typeof patchView>;
