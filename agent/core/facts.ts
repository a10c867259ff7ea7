/**
 * What a host runs and holds, read from reality. The journal explains, facts decide (agent-machine, "Truth rule").
 * These words are shared by the core and its ports (agent/ports.ts).
 */
import * as v from 'valibot';
import { versionId, versionText } from '#/protocol/ids.ts';

/** Directories: the version id. Partitions: 'a' or 'b'. */
export const slotId = v.pipe(v.string(), v.minLength(1), v.maxLength(129));
export type SlotId = string;

export const slotStatus = v.picklist([
  'empty',
  'writing',
  'written',
  'verified',
  'trial',
  'good',
  'bad',
]);
export type SlotStatus = v.InferOutput<typeof slotStatus>;

const counter = v.pipe(v.number(), v.safeInteger(), v.minValue(0));

export const slotRecord = v.object({
  slot: slotId,
  status: slotStatus,
  /** What it holds: an artifact, or an artifact for one config set (ids.ts, version id). */
  artifactId: v.nullable(versionId),
  version: v.nullable(versionText),
  release: v.nullable(counter),
  /** Why it is bad. */
  reason: v.nullable(v.pipe(v.string(), v.maxLength(1024))),
});
export type SlotRecord = Readonly<v.InferOutput<typeof slotRecord>>;

export const facts = v.object({
  bootId: v.pipe(v.string(), v.maxLength(64)),
  /** The slot that is live: where `current` points, or the partition of the running root. Null before the first install. */
  live: v.nullable(slotId),
  /** The artifact in the live slot, from its record, checked against the slot. */
  liveArtifact: v.nullable(versionId),
  /** The version whose processes run: 'mixed' when several do, null when none does. */
  active: v.nullable(v.union([v.literal('mixed'), versionId])),
  slots: v.pipe(v.array(slotRecord), v.maxLength(256)),
  /** Partitions: what the boot loader will do next. Directories: default = live, trial null. */
  boot: v.object({
    defaultSlot: v.nullable(slotId),
    trial: v.nullable(v.object({ slot: slotId, triesLeft: counter })),
    reached: v.optional(v.nullable(v.pipe(v.string(), v.maxLength(64)))),
  }),
});
type FactsShape = v.InferOutput<typeof facts>;
/** What the host runs and holds now. */
export interface Facts {
  readonly bootId: string;
  readonly live: SlotId | null;
  readonly liveArtifact: FactsShape['liveArtifact'];
  readonly active: FactsShape['active'];
  readonly slots: readonly SlotRecord[];
  readonly boot: {
    readonly defaultSlot: SlotId | null;
    readonly trial: { readonly slot: SlotId; readonly triesLeft: number } | null;
    /** How far the boot before this one came, if it was one of the slot on trial: for people (docs/specs/images.md). */
    readonly reached?: string | null | undefined;
  };
}

/** The record of one slot, or null when there is none. */
export function slotRecordOf(of: Facts, slot: SlotId | null): SlotRecord | null {
  return of.slots.find((record) => record.slot === slot) ?? null;
}
