/** Config sets in the repository of a trust world, sealed for its host. */
import { base64Of } from '#/bundle/base64.ts';
import {
  CONFIG_PAYLOAD_TYPE,
  type ConfigSet,
  encodeSealed,
  encryptSecret,
  type KnownConfig,
  makeConfigSet,
  type Recipient,
  type Sealed,
  sealFor,
} from '#/bundle/config-set.ts';
import { encodeEnvelope, signEnvelope } from '#/bundle/dsse.ts';
import type { Signer } from '#/bundle/keys.ts';
import { sealPublicKeyOf } from '#/bundle/seal.ts';
import { configRole, sealedPath } from '#/bundle/trust/documents.ts';
import { addConfigSet, configRefOf } from '#/control/trust/configs.ts';
import { publish, putTarget, readRoleDocument } from '#/control/trust/repository.ts';
import type { ArtifactRef, ConfigRef } from '#/protocol/documents.ts';
import type { GroupName } from '#/protocol/ids.ts';
import { HOST, seedOf, type TrustWorld } from './trust-world.ts';

export const SECRET = 'correct horse battery staple 2718281';
export const TAKES = { schema: 'web', version: 2 };
/** Secret half of the key that secrets are sealed to. */
/** The definition of a config set of group web, as an operator writes it; its secret stands in password.txt beside it. */
export const definitionOf = (version: number, artifact: string, level: string): string => `
scope = "web"
version = ${version}
group = "web"
artifacts = ["${artifact}"]
schema = { id = "web", version = 2 }
[plain]
LEVEL = "${level}"
[secrets]
DB_PASSWORD = "password.txt"
`;

export const HOST_SECRET: Uint8Array = seedOf(500);

let seeds = 1000;
const randomSeed = (): Uint8Array => seedOf((seeds += 1));

export interface MadeConfig {
  readonly known: KnownConfig;
  readonly ref: ConfigRef;
  readonly sealed: Sealed;
  readonly dataKey: Uint8Array;
}

/** A config set for these artifacts, made and sealed, not yet listed. */
export function makeConfig(
  artifacts: readonly ArtifactRef[],
  version: number,
  changes: Partial<ConfigSet> = {},
  to: Recipient = { host: HOST, sealKey: sealPublicKeyOf(HOST_SECRET) },
): MadeConfig {
  const dataKey = randomSeed();
  const { box, listed } = encryptSecret('DB_PASSWORD', Buffer.from(SECRET), dataKey);
  const known = makeConfigSet({
    schema: 'switchback.config/1',
    scope: 'web',
    version,
    group: 'blue' as GroupName,
    artifacts: artifacts.map(({ artifactId }) => artifactId),
    configSchema: { id: TAKES.schema, version: TAKES.version },
    created: 1_700_000_000,
    plain: { LEVEL: `v${version}` },
    secrets: { DB_PASSWORD: listed },
    ...changes,
  });
  const sealed: Sealed = {
    schema: 'switchback.sealed/1',
    configId: known.configId,
    boxes: { DB_PASSWORD: base64Of(box) },
    hosts: {
      [to.host]: sealFor(to, known, new Map([['DB_PASSWORD', dataKey]]), randomSeed),
    } as Sealed['hosts'],
  };
  return { known, ref: configRefOf(known), sealed, dataKey };
}

/** Lists it as its owners do. */
export function listConfig(world: TrustWorld, config: MadeConfig): void {
  const envelope = signEnvelope(CONFIG_PAYLOAD_TYPE, config.known.bytes, [world.key('config')]);
  world.publish(addConfigSet(world.repository(), envelope, config.sealed));
}

/** Lists anything under these names, signed by the role: what a thief of its listing keys can do. */
export function forge(
  world: TrustWorld,
  ref: ConfigRef,
  parts: {
    readonly payload: Uint8Array;
    readonly signers: readonly Signer[];
    readonly sealed: Sealed;
  },
  role = configRole(ref.scope),
): void {
  const document = readRoleDocument(world.repository(), role);
  const envelope = signEnvelope(CONFIG_PAYLOAD_TYPE, parts.payload, parts.signers);
  const files = [
    putTarget(document, ref.path, encodeEnvelope(envelope)),
    putTarget(document, sealedPath(ref), encodeSealed(parts.sealed)),
  ];
  world.publish(publish(world.repository(), new Map([[role, document]]), files));
}
