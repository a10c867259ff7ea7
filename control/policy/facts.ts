/** What rules are told: values made by trusted code from what was verified. docs/specs/policy-gates.md. */
import { PROVENANCE_TYPE } from '#/bundle/attestation.ts';
import type { Attested } from '#/bundle/attested.ts';
import type { JsonValue } from '#/protocol/errors.ts';

/** The predicate of an approval: `{group}`. */
export const APPROVAL_TYPE = 'https://switchback.invalid/approval/v1';

/** How an artifact did in a group. */
export interface StageFacts {
  readonly hosts: number;
  /** Hosts that run it and said so. */
  readonly confirmed: number;
  /** Attempts of it that were rolled back or failed. */
  readonly failed: number;
  /** Seconds since it was pinned there; 0 when it is not. */
  readonly soakedS: number;
}

export interface Facts {
  readonly nowS: number;
  /** 1 = Monday to 7 = Sunday, and the hour, both UTC. */
  readonly weekday: number;
  readonly hourUtc: number;
  readonly artifact: {
    readonly artifactId: string;
    readonly class: string;
    readonly version: string;
    readonly release: number;
  };
  readonly group: string;
  readonly reason: string;
  readonly attestations: readonly {
    readonly attester: string;
    readonly type: string;
    readonly predicate: JsonValue;
  }[];
  /** Names of those who stated provenance: who built it. */
  readonly authors: readonly string[];
  /** Names of those who approved it for this group, each once, authors left out. */
  readonly approvers: readonly string[];
  /** By group. */
  readonly stages: { readonly [group: string]: StageFacts };
}

/** The names that rules may use. */
export const factNames = [
  'nowS',
  'weekday',
  'hourUtc',
  'artifact',
  'group',
  'reason',
  'attestations',
  'authors',
  'approvers',
  'stages',
] as const satisfies readonly (keyof Facts)[];

/** Facts of one question. People count once, however many keys they have, and never for what they built (E21, E22). */
export function factsOf(
  given: Pick<Facts, 'nowS' | 'artifact' | 'group' | 'reason' | 'stages'>,
  attested: readonly Attested[],
): Facts {
  const authors = namesOf(attested, (each) => each.predicateType === PROVENANCE_TYPE);
  const approvers = namesOf(attested, (each) => isApproval(each, given.group));
  return {
    ...given,
    // 1970-01-01 was a Thursday.
    weekday: ((Math.floor(given.nowS / 86_400) + 3) % 7) + 1,
    hourUtc: Math.floor(given.nowS / 3600) % 24,
    attestations: attested.map(({ attester, predicateType, predicate }) => ({
      attester,
      type: predicateType,
      predicate,
    })),
    authors,
    approvers: approvers.filter((approver) => !authors.includes(approver)),
  };
}

function namesOf(
  attested: readonly Attested[],
  isWanted: (each: Attested) => boolean,
): readonly string[] {
  return [...new Set(attested.filter(isWanted).map((each) => each.attester))].sort();
}

function isApproval({ predicateType, predicate }: Attested, group: string): boolean {
  const isObject = typeof predicate === 'object' && predicate !== null && 'group' in predicate;
  return predicateType === APPROVAL_TYPE && isObject && predicate['group'] === group;
}
