/** Config sets, as operators see them, and the hosts that their secrets are sealed for. docs/specs/config-sets.md. */
import * as v from 'valibot';
import { envelope } from './documents.ts';
import { artifactId, configId, groupName, hostId, name } from './ids.ts';
import { publicKeyHex, positive, whole } from './scalars.ts';

export const configView = v.strictObject({
  configId,
  scope: name,
  version: positive,
  group: groupName,
  artifacts: v.array(artifactId),
  configSchema: v.strictObject({ id: name, version: positive }),
  /** How many entries of each kind. */
  plain: whole,
  secrets: whole,
  createdAtMs: whole,
  /** Hosts that the secrets are sealed for. */
  sealedFor: v.array(hostId),
  /** Groups and hosts whose pins name it. */
  pinnedBy: v.array(v.string()),
});
export type ConfigView = v.InferOutput<typeof configView>;
export const configList = v.strictObject({ items: v.array(configView) });

/** The hosts of a group with their statements: what names the keys that secrets are sealed to. */
export const recipients = v.strictObject({
  /** Signs the statements. Whoever seals keeps it from the first time on: it is not to be believed anew each time. */
  enrolmentKey: publicKeyHex,
  hosts: v.array(v.strictObject({ host: hostId, statement: envelope })),
});
export type Recipients = v.InferOutput<typeof recipients>;
