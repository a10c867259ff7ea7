/**
 * Signed documents and reports that travel between control and agents. They are TUF targets or DSSE payloads, so what
 * stands here is checked again after the signature. Design: docs/specs/trust.md, docs/specs/protocol.md.
 */
import * as v from 'valibot';
import {
  artifactId,
  configId,
  groupName,
  hostId,
  name,
  rolloutId,
  sha256Hex,
  versionId,
  versionText,
} from './ids.ts';

/** How the `why` of a host begins that its own operator paused: control tells by it what makes the host go on. */
export const PAUSED_WHY = 'paused by the operator of this host';

const seconds = v.pipe(v.number(), v.safeInteger(), v.minValue(0));
const counter = v.pipe(v.number(), v.safeInteger(), v.minValue(0));
const shortText = v.pipe(v.string(), v.maxLength(1024));

export const artifactRef = v.strictObject({
  artifactId,
  class: name,
  version: versionText,
  release: v.pipe(v.number(), v.safeInteger(), v.minValue(1)),
  /** TUF target path of the manifest: images/<class>/<version>/<artifactId>.manifest.json */
  path: v.pipe(v.string(), v.maxLength(512)),
});
export type ArtifactRef = v.InferOutput<typeof artifactRef>;

export const configRef = v.strictObject({
  configId,
  scope: name,
  version: v.pipe(v.number(), v.safeInteger(), v.minValue(1)),
  /** TUF target path of the config set: config/<scope>/<version>/<configId>.json */
  path: v.pipe(v.string(), v.maxLength(512)),
});
export type ConfigRef = v.InferOutput<typeof configRef>;

/** `groups/<group>/desired.json`, and `groups/<group>/host-<hostId>.json` for the pin of one host. */
export const desiredDocument = v.strictObject({
  schema: v.literal('switchback.desired/1'),
  group: groupName,
  /** Set in the pin of a single host, which goes before the pin of its group. */
  host: v.optional(hostId),
  /** Grows with each pin of this group; agents refuse a smaller one. */
  seq: v.pipe(v.number(), v.safeInteger(), v.minValue(1)),
  artifact: artifactRef,
  /** The config set that the artifact runs with; the two are one version. */
  config: v.optional(configRef),
  /** What hosts ran before: what control may still offer while the rollout runs or is reverted. */
  previous: v.optional(artifactRef),
  previousConfig: v.optional(configRef),
  reason: shortText,
  /** Waves never open before their time, whatever control says. Empty: no earliest time. */
  waves: v.pipe(
    v.array(
      v.strictObject({
        percent: v.pipe(v.number(), v.integer(), v.minValue(0), v.maxValue(100)),
        notBefore: seconds,
      }),
    ),
    v.maxLength(32),
  ),
  /** Seconds since 1970 after which the pin no longer causes a switch. */
  expiresAt: v.optional(seconds),
  /** Verdicts of the policy gates about what may be offered; asked for where the policy has gates. */
  verdicts: v.optional(v.pipe(v.array(v.lazy(() => envelope)), v.maxLength(4))),
  /** That the audit log has this pin (C2SP tlog-proof); asked for when the policy names a log. */
  logProof: v.optional(v.pipe(v.string(), v.maxLength(128 * 1024))),
});
export type DesiredDocument = v.InferOutput<typeof desiredDocument>;

/**
 * What control tells one host at a poll: a hint about timing inside what the signed pin allows. Fields that this agent does
 * not know are passed over, so that a newer control does not stop older agents.
 */
export const assignment = v.object({
  generation: counter,
  group: groupName,
  /** null: stay where you are (no pin, on hold, halted, or the wave is not open). */
  offer: v.nullable(
    v.object({
      artifactId,
      /** The config set that it is offered with. An agent that does not know this field refuses the pin that has one. */
      configId: v.optional(configId),
      rolloutId: v.nullable(rolloutId),
      /** Where the bundle file can be fetched, best first. Integrity never depends on them. */
      sources: v.pipe(
        v.array(v.pipe(v.string(), v.maxLength(2048))),
        v.minLength(1),
        v.maxLength(16),
      ),
      /** How many times the agent may try this offer; raised by an operator's retry, which also clears the deny-list entry. */
      retryGeneration: counter,
    }),
  ),
  /** Stop before the switch; a trial that runs goes on to its own end. */
  halted: v.boolean(),
  /** An operator's order to return to the previous slot, as the generation it was given in; 0: none. */
  rollbackGeneration: counter,
  /** Why there is no offer or what the host waits for, in words for the operator. */
  why: shortText,
});
export type Assignment = v.InferOutput<typeof assignment>;

/** Phases of an attempt, in the order in which they can be reached. */
export const attemptPhases = [
  'offered',
  'accepted',
  'downloading',
  'verifying',
  'staged',
  'waiting',
  'arming',
  'switching',
  'trial',
  'committing',
  'confirmed',
  'rolling-back',
  'rolled-back',
  'refused',
  'aborted',
  'needs-attention',
] as const;
export const attemptPhase = v.picklist(attemptPhases);
export type AttemptPhase = v.InferOutput<typeof attemptPhase>;
/** After one of these the attempt is over. `confirmed` alone is success (promise 3). */
export const terminalPhases = [
  'confirmed',
  'rolled-back',
  'refused',
  'aborted',
  'needs-attention',
] as const satisfies readonly AttemptPhase[];

export const reportEvent = v.strictObject({
  /** Unique per event of this host: the idempotency key. */
  id: v.pipe(v.string(), v.regex(/^[0-9a-f]{32}$/)),
  /** The attempt: one id from offer to its terminal phase. */
  attempt: v.pipe(v.string(), v.regex(/^[0-9a-f]{32}$/)),
  rolloutId: v.nullable(rolloutId),
  /** What was tried, as everywhere in a report: an artifact, or an artifact with its config (ids.ts). */
  artifactId: versionId,
  phase: attemptPhase,
  /** An error code of protocol/errors.ts, where the phase has one. */
  code: v.nullable(v.pipe(v.string(), v.maxLength(64))),
  message: shortText,
  /** Host clock, milliseconds since 1970; only for display, order comes from `seq`. */
  at: counter,
  /** Which check failed with what output, bytes downloaded and reused, durations: for people, limited. */
  evidence: v.pipe(
    v.record(v.pipe(v.string(), v.maxLength(64)), v.union([v.string(), v.number(), v.boolean()])),
    v.maxEntries(64),
  ),
});
export type ReportEvent = v.InferOutput<typeof reportEvent>;

/** Payload of the DSSE envelope that a host sends, type `application/vnd.switchback.report+json`. */
export const reportDocument = v.strictObject({
  schema: v.literal('switchback.report/1'),
  host: hostId,
  /** Grows by one with each report of this host. */
  seq: v.pipe(v.number(), v.safeInteger(), v.minValue(1)),
  bootId: v.pipe(v.string(), v.maxLength(64)),
  /** What the host runs now, read from reality. */
  running: v.nullable(versionId),
  previous: v.nullable(versionId),
  /** State of the agent's machine (agent/core/state.ts `at`). */
  state: v.pipe(v.string(), v.maxLength(32)),
  why: shortText,
  healthy: v.nullable(v.boolean()),
  agentVersion: v.pipe(v.string(), v.maxLength(64)),
  events: v.pipe(v.array(reportEvent), v.maxLength(100)),
  /** Host facts, sent when control asks for them or when they changed. */
  facts: v.optional(
    v.pipe(
      v.record(v.pipe(v.string(), v.maxLength(64)), v.union([v.string(), v.number(), v.boolean()])),
      v.maxEntries(128),
    ),
  ),
  denied: v.pipe(
    v.array(v.strictObject({ artifactId: versionId, code: v.pipe(v.string(), v.maxLength(64)) })),
    v.maxLength(64),
  ),
  /** The newest tree of the audit log that this host saw: what makes the fleet its witness. */
  log: v.optional(
    v.strictObject({
      origin: v.pipe(v.string(), v.maxLength(200)),
      size: counter,
      root: sha256Hex,
    }),
  ),
});
export type ReportDocument = v.InferOutput<typeof reportDocument>;
export const REPORT_PAYLOAD_TYPE = 'application/vnd.switchback.report+json';

/** A DSSE envelope as JSON (secure-systems-lab/dsse, protocol 1.0.2). */
export const envelope = v.strictObject({
  payloadType: v.pipe(v.string(), v.maxLength(256)),
  payload: v.pipe(v.string(), v.maxLength(1024 * 1024)),
  signatures: v.pipe(
    v.array(
      v.strictObject({
        keyid: v.pipe(v.string(), v.maxLength(128)),
        sig: v.pipe(v.string(), v.maxLength(256)),
      }),
    ),
    v.minLength(1),
    v.maxLength(16),
  ),
});
export type Envelope = v.InferOutput<typeof envelope>;
