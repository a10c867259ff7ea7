/**
 * Step 8 of the verification order: the config set of a pin, from exactly the role of its scope, signed by that role's keys, for
 * this artifact and group, and sealed for this host. docs/specs/config-sets.md. Loaded only where a pin names one.
 */
import type { ConfigRef } from '#/protocol/documents.ts';
import { Problem } from '#/protocol/errors.ts';
import type { ArtifactId, HostId } from '#/protocol/ids.ts';
import {
  CONFIG_ENVELOPE_MAX_BYTES,
  decodeConfigEnvelope,
  type KnownConfig,
  openConfigSet,
  openEntries,
  type OwnSecrets,
  ownSecrets,
  readSealed,
  requireBoxes,
  requireConfigFor,
  SEALED_MAX_BYTES,
} from '../config-set.ts';
import { type PublicKey, publicKeyOf } from '../keys.ts';
import type { Manifest } from '../manifest.ts';
import type { Session } from './client.ts';
import { configPath, configRole, sealedPath } from './documents.ts';
import { fetchTarget, findIn } from './find.ts';
import { ed25519KeyOf } from './rules.ts';
import { delegationOf, TARGETS, type TrustedSet } from './trusted-set.ts';

export interface ConfigContext {
  readonly group: string;
  readonly host: HostId;
  readonly artifactId: ArtifactId;
  readonly manifest: Manifest;
  readonly revokedKeyIds: readonly string[];
  /** Secret halves of the keys that secrets are sealed to, the newest first. */
  readonly sealSecrets: readonly Uint8Array[];
}

export interface VerifiedConfig {
  readonly set: TrustedSet;
  readonly known: KnownConfig;
  readonly own: OwnSecrets;
}

/**
 * @throws Problem E_PIN (the path is not that of the reference), E_NOTARGET (another role lists it), E_SIGS, E_CONFIG_SET, E_SEAL,
 * and what a target can be refused with
 */
export async function readConfig(
  set: TrustedSet,
  session: Session,
  ref: ConfigRef,
  context: ConfigContext,
): Promise<VerifiedConfig> {
  const path = configPath(ref);
  if (ref.path !== path) {
    throw new Problem('E_PIN', `the pin names the path ${ref.path}, expected ${path}`);
  }
  const role = configRole(ref.scope);
  const listed = await findIn(set, path, role, session);
  const envelope = decodeConfigEnvelope(
    await fetchTarget(listed, session, CONFIG_ENVELOPE_MAX_BYTES),
  );
  const { keys, threshold } = keysOf(listed.set, role, context.revokedKeyIds);
  const known = openConfigSet(envelope, { keys, threshold });
  const { artifactId, group, host, manifest, sealSecrets } = context;
  requireConfigFor(known, { ...ref, group, artifactId, takes: manifest.config });
  const beside = await findIn(listed.set, sealedPath(ref), role, session);
  const sealed = readSealed(await fetchTarget(beside, session, SEALED_MAX_BYTES));
  requireBoxes(known, sealed.boxes);
  const own = ownSecrets(sealed, known, host, artifactId);
  // Opened here and thrown away: a host that could not read its secrets does not begin.
  openEntries(known, own, host, artifactId, sealSecrets);
  return { set: beside.set, known, own };
}

/** Keys and threshold of a role that targets delegates; revoked keys count for nothing. */
function keysOf(
  set: TrustedSet,
  role: string,
  revoked: readonly string[],
): { readonly keys: readonly PublicKey[]; readonly threshold: number } {
  const { delegation, keys } = delegationOf(set, { role, delegator: TARGETS.role });
  const trusted = delegation.role.keyIds.flatMap((keyId) => {
    const key = keys.get(keyId);
    const bytes = key === undefined ? null : ed25519KeyOf(key);
    return bytes === null ? [] : [publicKeyOf(bytes)];
  });
  return {
    keys: trusted.filter((key) => !revoked.includes(key.keyId)),
    threshold: delegation.role.threshold,
  };
}
