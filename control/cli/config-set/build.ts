/** A config set from its definition: secrets encrypted, the document signed; and sealing it for hosts. */
import { dirname, resolve } from 'node:path';
import { base64Of } from '#/bundle/base64.ts';
import {
  CONFIG_PAYLOAD_TYPE,
  type ConfigSet,
  encryptSecret,
  type KnownConfig,
  makeConfigSet,
  type Recipient,
  requireBoxes,
  type Sealed,
  sealFor,
} from '#/bundle/config-set.ts';
import { signEnvelope } from '#/bundle/dsse.ts';
import { hexOf, type Signer } from '#/bundle/keys.ts';
import { Problem } from '#/protocol/errors.ts';
import type { HostId } from '#/protocol/ids.ts';
import { artifactNamed, readConfigDefinition, readSecretFile } from './definition.ts';
import type { ConfigFile, ConfigKeys } from './files.ts';

export interface Built {
  readonly file: ConfigFile;
  readonly keys: ConfigKeys;
  readonly known: KnownConfig;
}

/** Builds and signs. It is sealed for nobody yet. `randomSeed` gives 32 fresh random bytes at each call. */
export async function buildConfigSet(
  definitionPath: string,
  signers: readonly Signer[],
  randomSeed: () => Uint8Array,
  nowMs: number,
): Promise<Built> {
  const definition = await readConfigDefinition(definitionPath);
  const base = dirname(definitionPath);
  const secrets: Record<string, ConfigSet['secrets'][string]> = {};
  const boxes: Record<string, string> = {};
  const keys = new Map<string, Uint8Array>();
  for (const [name, path] of Object.entries(definition.secrets)) {
    const dataKey = randomSeed();
    const encrypted = encryptSecret(name, await readSecretFile(resolve(base, path)), dataKey);
    secrets[name] = encrypted.listed;
    boxes[name] = base64Of(encrypted.box);
    keys.set(name, dataKey);
  }
  const artifacts = await Promise.all(
    definition.artifacts.map((text) => artifactNamed(base, text)),
  );
  const known = makeConfigSet({
    schema: 'switchback.config/1',
    scope: definition.scope,
    version: definition.version,
    group: definition.group,
    artifacts,
    configSchema: definition.schema,
    created: Math.floor(nowMs / 1000),
    plain: definition.plain,
    secrets,
  });
  const { configId } = known;
  return {
    known,
    file: {
      envelope: signEnvelope(CONFIG_PAYLOAD_TYPE, known.bytes, signers),
      sealed: { schema: 'switchback.sealed/1', configId, boxes, hosts: {} as Sealed['hosts'] },
    },
    keys: { configId, keys, sealedTo: {} },
  };
}

export interface Resealed {
  readonly sealed: Sealed;
  readonly keys: ConfigKeys;
  /** Hosts that it is sealed for now and was not before, or not to this key. */
  readonly added: readonly HostId[];
}

/**
 * Seals the data keys for those that they are not sealed for yet, with the key that each has now. Hosts that are not among the
 * recipients any more are taken out.
 * @throws Problem E_CONFIG_SET when the keys are of another config set
 */
export function sealAgain(
  known: KnownConfig,
  sealed: Sealed,
  keys: ConfigKeys,
  recipients: readonly Recipient[],
  randomSeed: () => Uint8Array,
): Resealed {
  if (keys.configId !== known.configId) {
    throw new Problem('E_CONFIG_SET', `the data keys are of config set ${keys.configId}`);
  }
  requireBoxes(known, sealed.boxes);
  const hosts: Record<HostId, Sealed['hosts'][HostId]> = {};
  const sealedTo: Record<string, string> = {};
  const added: HostId[] = [];
  for (const recipient of recipients) {
    const { host } = recipient;
    const key = hexOf(recipient.sealKey);
    const before = keys.sealedTo[host] === key ? sealed.hosts[host] : undefined;
    hosts[host] = before ?? sealFor(recipient, known, keys.keys, randomSeed);
    sealedTo[host] = key;
    if (before === undefined) added.push(host);
  }
  return { sealed: { ...sealed, hosts }, keys: { ...keys, sealedTo }, added };
}
