/**
 * Policy gates as the policy role signs them: who may attest what, the rules, and where hosts demand a verdict. Hosts never run
 * a rule: they check the verdict. docs/specs/policy-gates.md.
 */
import * as v from 'valibot';
import { name, sha256Hex } from '#/protocol/ids.ts';

export const ATTESTERS_PATH = 'policy/attesters.json';
export const GATES_PATH = 'policy/gates.json';

const text = v.pipe(v.string(), v.minLength(1), v.maxLength(1024));

/** `policy/attesters.json`: whose statements are facts. */
export const attestersDocument = v.strictObject({
  schema: v.literal('switchback.attesters/1'),
  attesters: v.pipe(
    v.array(
      v.strictObject({
        /** What rules call it: `ci`, `scanner`, or a person. All keys of a person stand under one name. */
        name,
        keys: v.pipe(v.array(sha256Hex), v.minLength(1), v.maxLength(16)),
        /** Predicate types that it may state. */
        types: v.pipe(v.array(text), v.minLength(1), v.maxLength(64)),
        /** `builder.id` of the provenance that it may state. */
        builders: v.pipe(v.array(text), v.maxLength(64)),
      }),
    ),
    v.maxLength(256),
  ),
});
export type AttestersDocument = v.InferOutput<typeof attestersDocument>;

const groups = v.pipe(v.array(v.union([v.literal('*'), name])), v.maxLength(1000));

/** `policy/gates.json`. Its sha256 is the policy digest of verdicts. */
export const gatesDocument = v.strictObject({
  schema: v.literal('switchback.gates/1'),
  /** Who judges, and with which keys it signs. */
  verifierId: text,
  keys: v.pipe(v.array(sha256Hex), v.minLength(1), v.maxLength(8)),
  /** Groups whose hosts refuse an artifact without a verdict; `*` for all. */
  groups,
  rules: v.pipe(
    v.array(
      v.strictObject({
        name,
        /** What the rule asks for, for whoever is denied. */
        message: text,
        /** CEL; allows when it gives true and nothing else. */
        expression: v.pipe(v.string(), v.minLength(1), v.maxLength(8192)),
        /** Groups that the rule is for; `*` for all. */
        groups,
      }),
    ),
    v.maxLength(128),
  ),
});
export type GatesDocument = v.InferOutput<typeof gatesDocument>;
export type GateRule = GatesDocument['rules'][number];

/** True when the list names the group or all groups. */
export function coversGroup(list: readonly string[], group: string): boolean {
  return list.includes('*') || list.includes(group);
}
