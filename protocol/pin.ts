/** Pins: which version a group, or one host, is held at. Signed as TUF targets; here as operators see them. */
import * as v from 'valibot';
import { artifactId, configId, groupName, hostId, versionId } from './ids.ts';
import { atMs, percent, positive, reason, shortText, whole } from './scalars.ts';

/** What an operator sends to pin a group or a host. */
export const pinRequest = v.strictObject({
  artifactId,
  /** The config set that goes with it, where the artifact takes one. */
  configId: v.optional(configId),
  reason,
  ticket: v.optional(shortText),
  /** After this the pin causes no switch any more. */
  expiresAtMs: v.optional(atMs),
  /** Earliest times that go into the signed pin: hosts obey them whatever control says. */
  waves: v.optional(
    v.pipe(v.array(v.strictObject({ percent, notBeforeMs: atMs })), v.maxLength(32)),
  ),
});
export type PinRequest = v.InferOutput<typeof pinRequest>;

export const pinView = v.strictObject({
  group: groupName,
  host: v.nullable(hostId),
  artifactId: versionId,
  version: v.string(),
  release: positive,
  /** Grows with each pin of the group (`seq` of the signed document). */
  seq: positive,
  reason: v.string(),
  ticket: v.nullable(v.string()),
  actor: v.string(),
  createdAtMs: atMs,
  expiresAtMs: v.nullable(atMs),
  isExpired: v.boolean(),
});
export type PinView = v.InferOutput<typeof pinView>;

/** Version of the metadata that a change produced, so that a caller can wait for it. */
export const trustVersion = v.strictObject({ snapshot: whole });
