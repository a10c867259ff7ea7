/** Verification of an uploaded bundle, as the CLI does it too. Signatures are checked at admission, against the policy. */
import { decodeEnvelope } from '#/bundle/dsse.ts';
import { openBundle } from '#/control/cli/bundle/read.ts';
import { verifyBundle } from '#/control/cli/bundle/verify.ts';
import { readPatchHeader, verifyPatch } from '#/control/cli/bundle/patch-verify.ts';
import type { VerifyBundle, VerifyPatch } from './http/handler.ts';

/** Every member, chunk and file digest of the bundle at `path`. @throws E_CHUNK, E_HASH, E_SCHEMA, E_LENGTH … */
export const checkBundle: VerifyBundle = async (path) => {
  const { artifactId } = await verifyBundle(path, null);
  await using bundle = await openBundle(path, null);
  const { manifestBytes, envelope, fileBytes } = bundle;
  const attestations = bundle.attestations.map((line) => decodeEnvelope(Buffer.from(line)));
  return { artifactId, manifestBytes, envelope, fileBytes, attestations };
};

/** Every segment of a patch, against the two bundles. */
export const checkPatch: VerifyPatch = {
  header: async (path) => (await readPatchHeader(path)).header,
  verify: verifyPatch,
};
