/**
 * Selectors over labels: `role=web,zone!=b,canary,!legacy`. All terms must hold. `key=a|b` accepts any of the values.
 * Labels belong to operators; a host can never change which selector it matches.
 */
import * as v from 'valibot';
import { Problem } from './errors.ts';

const LABEL_KEY = /^[a-z0-9](?:[a-z0-9./-]{0,61}[a-z0-9])?$/;
const LABEL_VALUE = /^[A-Za-z0-9](?:[A-Za-z0-9._-]{0,61}[A-Za-z0-9])?$/;
const MAX_TERMS = 32;

export const labels = v.pipe(
  v.record(
    v.pipe(v.string(), v.regex(LABEL_KEY, 'expected a label key: 1 to 63 of a-z 0-9 . / -')),
    v.pipe(
      v.string(),
      v.regex(LABEL_VALUE, 'expected a label value: 1 to 63 of A-Z a-z 0-9 . _ -'),
    ),
  ),
  v.maxEntries(64),
);
export type Labels = v.InferOutput<typeof labels>;

type Term =
  | { readonly kind: 'has' | 'lacks'; readonly key: string }
  | { readonly kind: 'in' | 'notIn'; readonly key: string; readonly values: readonly string[] };
export type Selector = readonly Term[];

function parseTerm(text: string): Term {
  const equals = /^([^=!]+)(!?=)(.+)$/.exec(text);
  if (equals) {
    const [, key = '', operator, list = ''] = equals;
    const values = list.split('|');
    if (!LABEL_KEY.test(key) || !values.every((value) => LABEL_VALUE.test(value)))
      throw new Problem('E_USAGE', `selector term '${text}': expected key=value or key!=value`);
    return { kind: operator === '=' ? 'in' : 'notIn', key, values };
  }
  const bare = text.startsWith('!') ? text.slice(1) : text;
  if (!LABEL_KEY.test(bare))
    throw new Problem(
      'E_USAGE',
      `selector term '${text}': expected key, !key, key=value or key!=value`,
    );
  return { kind: bare === text ? 'has' : 'lacks', key: bare };
}

/** Terms of a selector; the empty text selects everything. Throws E_USAGE with the term that is wrong. */
export function parseSelector(text: string): Selector {
  if (text === '') return [];
  const parts = text.split(',');
  if (parts.length > MAX_TERMS)
    throw new Problem(
      'E_USAGE',
      `selector has ${parts.length} terms, at most ${MAX_TERMS} are allowed`,
    );
  return parts.map((part) => parseTerm(part.trim()));
}

function termHolds(term: Term, of: Labels): boolean {
  const value = Object.hasOwn(of, term.key) ? of[term.key] : undefined;
  switch (term.kind) {
    case 'has':
      return value !== undefined;
    case 'lacks':
      return value === undefined;
    case 'in':
      return value !== undefined && term.values.includes(value);
    case 'notIn':
      return value === undefined || !term.values.includes(value);
  }
}

/** True when every term holds for these labels. */
export function selects(selector: Selector, of: Labels): boolean {
  return selector.every((term) => termHolds(term, of));
}

/** Schema of a selector text that parses. */
export const selectorText = v.pipe(
  v.string(),
  v.maxLength(2048),
  v.check((text) => {
    try {
      parseSelector(text);
      return true;
    } catch {
      return false;
    }
  }, 'expected a selector such as role=web,zone!=b,canary,!legacy'),
);
