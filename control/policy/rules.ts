/** Rules in CEL: what is accepted as one, and what it says of facts. Runs in a thread of its own (gate-worker.ts). */
import { celEnv, parse, plan } from '@bufbuild/cel';
import { Problem } from '#/protocol/errors.ts';
import { type Facts, factNames } from './facts.ts';

export interface Rule {
  readonly name: string;
  readonly message: string;
  readonly expression: string;
}

export interface RuleResult {
  readonly name: string;
  readonly isAllowed: boolean;
  /** Why not: the message of the rule, and what it gave where that was no boolean. */
  readonly why: string;
}

type Parsed = ReturnType<typeof parse>;

/** Throws E_CONFIG for a rule that does not parse or that names something which is no fact (P04). */
export function checkRule(rule: Rule): void {
  parsedRule(rule);
}

function parsedRule(rule: Rule): Parsed {
  let parsed: Parsed;
  try {
    parsed = parse(rule.expression);
  } catch (cause) {
    throw new Problem('E_CONFIG', `rule ${rule.name}: ${messageOf(cause)}`, {}, { cause });
  }
  for (const name of freeNames(parsed.expr, new Set())) {
    if (!(factNames as readonly string[]).includes(name)) {
      throw new Problem('E_CONFIG', `rule ${rule.name}: ${name} is no fact`, { name });
    }
  }
  return parsed;
}

/** Variables of an expression that it does not bind itself. */
function freeNames(node: unknown, bound: ReadonlySet<string>): readonly string[] {
  if (Array.isArray(node)) return node.flatMap((each) => freeNames(each, bound));
  if (typeof node !== 'object' || node === null) return [];
  const kind = node as { case?: unknown; value?: unknown };
  if (kind.case === 'identExpr') {
    const { name } = kind.value as { name: string };
    return bound.has(name) ? [] : [name];
  }
  if (kind.case === 'comprehensionExpr') {
    const loop = kind.value as Record<string, unknown>;
    const inner = new Set(bound);
    for (const key of ['accuVar', 'iterVar', 'iterVar2']) inner.add(String(loop[key]));
    return [
      ...freeNames(loop['iterRange'], bound),
      ...freeNames(loop['accuInit'], bound),
      ...['loopCondition', 'loopStep', 'result'].flatMap((key) => freeNames(loop[key], inner)),
    ];
  }
  return Object.values(node).flatMap((each) => freeNames(each, bound));
}

/** Only `true` allows: an error, null, a text, a number and everything else deny (P01). Never throws. */
export function evaluate(rule: Rule, facts: Facts): RuleResult {
  try {
    const given = plan(celEnv(), parsedRule(rule))(bindingsOf(facts) as never);
    if (given === true) return { name: rule.name, isAllowed: true, why: '' };
    const what = given === false ? '' : ` (it gave ${describe(given)})`;
    return { name: rule.name, isAllowed: false, why: `${rule.message}${what}` };
  } catch (error) {
    return { name: rule.name, isAllowed: false, why: `${rule.message} (${messageOf(error)})` };
  }
}

function describe(value: unknown): string {
  return value instanceof Error ? messageOf(value) : String(value).slice(0, 64);
}

function messageOf(error: unknown): string {
  return (error instanceof Error ? error.message : String(error)).slice(0, 200);
}

/** Whole numbers are integers in CEL. */
function bindingsOf(value: unknown): unknown {
  if (typeof value === 'number' && Number.isSafeInteger(value)) return BigInt(value);
  if (Array.isArray(value)) return value.map(bindingsOf);
  if (typeof value !== 'object' || value === null) return value;
  return Object.fromEntries(Object.entries(value).map(([key, each]) => [key, bindingsOf(each)]));
}
