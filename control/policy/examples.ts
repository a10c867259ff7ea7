/** Example facts beside rules: what each must allow, and what it must deny. A rule that denies no example is not tested. */
import * as v from 'valibot';
import type { GateRule } from '#/bundle/trust/gates.ts';
import { Problem } from '#/protocol/errors.ts';
import type { Facts } from './facts.ts';
import { judgeAll } from './judge.ts';
import { checkRule } from './rules.ts';

/** A file of examples: `base` facts, and for each example what is different (arrays are replaced, objects merged). */
export const examplesDocument = v.strictObject({
  schema: v.literal('switchback.gate-examples/1'),
  base: v.looseObject({}),
  examples: v.pipe(
    v.array(
      v.strictObject({
        rule: v.string(),
        expect: v.picklist(['allow', 'deny']),
        why: v.string(),
        change: v.looseObject({}),
      }),
    ),
    v.maxLength(1000),
  ),
});
export type ExamplesDocument = v.InferOutput<typeof examplesDocument>;

const EXAMPLES_DEADLINE_MS = 30_000;

/** What is wrong, in sentences; empty when every example is decided as it says and every rule denies one of them. */
export async function failedExamples(
  rules: readonly GateRule[],
  { base, examples }: ExamplesDocument,
): Promise<readonly string[]> {
  const wrong: string[] = [];
  const denies = new Set<string>();
  for (const rule of rules) checkRule(rule);
  const questions = examples.map(({ rule: name, change }) => {
    const rule = rules.find((each) => each.name === name);
    if (rule === undefined)
      throw new Problem('E_CONFIG', `an example is for ${name}, no such rule`);
    return { rules: [rule], facts: merged(base, change) as Facts };
  });
  const answers = await judgeAll(questions, EXAMPLES_DEADLINE_MS);
  for (const [at, { rule: name, expect, why }] of examples.entries()) {
    const result = answers[at]?.[0];
    const found = result?.isAllowed === true ? 'allow' : 'deny';
    if (found !== expect) {
      wrong.push(`${name}: ${why}: expected ${expect}, it says ${found} (${result?.why ?? ''})`);
    }
    if (expect === 'deny' && found === 'deny') denies.add(name);
  }
  for (const { name } of rules) {
    if (!denies.has(name)) wrong.push(`${name}: no example is denied by it`);
  }
  return wrong;
}

function merged(base: unknown, change: unknown): unknown {
  if (!isObject(base) || !isObject(change)) return change;
  const result: Record<string, unknown> = { ...base };
  for (const [key, value] of Object.entries(change)) result[key] = merged(base[key], value);
  return result;
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
