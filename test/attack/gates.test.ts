/** Attacks on the policy gates: what rules are told, what they may do, and what hosts accept as their verdict. */
import { readFileSync } from 'node:fs';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { PROVENANCE_TYPE, STATEMENT_PAYLOAD_TYPE, STATEMENT_TYPE } from '#/bundle/attestation.ts';
import { type Attested, attestedOf } from '#/bundle/attested.ts';
import { canonicalDocument } from '#/bundle/canonical.ts';
import { encodeEnvelope, signEnvelope } from '#/bundle/dsse.ts';
import { hexOf, sha256, type Signer } from '#/bundle/keys.ts';
import { readDocument } from '#/bundle/trust/documents.ts';
import {
  type AttestersDocument,
  type GatesDocument,
  gatesDocument,
  type GateRule,
} from '#/bundle/trust/gates.ts';
import { signVerdict } from '#/bundle/vsa.ts';
import { examplesDocument, failedExamples } from '#/control/policy/examples.ts';
import { APPROVAL_TYPE, type Facts, factsOf } from '#/control/policy/facts.ts';
import { judge } from '#/control/policy/judge.ts';
import { checkRule, evaluate } from '#/control/policy/rules.ts';
import { addClass } from '#/control/trust/delegations.ts';
import { addAttestations, readAttestations, setGates } from '#/control/trust/gates.ts';
import { publish, readRoleDocument, withFiles } from '#/control/trust/repository.ts';
import type { ArtifactRef, DesiredDocument, Envelope } from '#/protocol/documents.ts';
import type { JsonValue } from '#/protocol/errors.ts';
import type { ArtifactId } from '#/protocol/ids.ts';
import {
  agentOf,
  assignmentOf,
  contextOf,
  signerNumber,
  TrustWorld,
} from '#/test/support/trust-world.ts';

const ARTIFACT = 'a'.repeat(64) as ArtifactId;
const [ci, rebuilder, ann, annAtHome, bob] = [11, 12, 13, 14, 15].map(signerNumber) as [
  Signer,
  Signer,
  Signer,
  Signer,
  Signer,
];
const keyOf = (signer: Signer): string => hexOf(signer.key.bytes);
const attesters: AttestersDocument = {
  schema: 'switchback.attesters/1',
  attesters: [
    { name: 'ci', keys: [keyOf(ci)], types: [PROVENANCE_TYPE, 'test'], builders: ['builder:ci'] },
    {
      name: 'rebuilder',
      keys: [keyOf(rebuilder)],
      types: [PROVENANCE_TYPE],
      builders: ['builder:second'],
    },
    // A person is one attester, whatever the number of their keys.
    {
      name: 'ann',
      keys: [keyOf(ann), keyOf(annAtHome)],
      types: [APPROVAL_TYPE, PROVENANCE_TYPE],
      builders: ['builder:ann'],
    },
    { name: 'bob', keys: [keyOf(bob)], types: [APPROVAL_TYPE], builders: [] },
  ],
};

function statement(
  type: string,
  predicate: JsonValue,
  signer: Signer,
  artifactId: string = ARTIFACT,
): Envelope {
  const payload = canonicalDocument({
    _type: STATEMENT_TYPE,
    subject: [{ digest: { sha256: artifactId } }],
    predicateType: type,
    predicate,
  });
  return signEnvelope(STATEMENT_PAYLOAD_TYPE, payload, [signer]);
}

const provenance = (builder: string, signer: Signer, artifactId: string = ARTIFACT): Envelope =>
  statement(PROVENANCE_TYPE, { runDetails: { builder: { id: builder } } }, signer, artifactId);
const approval = (signer: Signer, group = 'prod'): Envelope =>
  statement(APPROVAL_TYPE, { group }, signer);
const lineOf = (envelope: Envelope): string => Buffer.from(encodeEnvelope(envelope)).toString();
const attested = (...envelopes: Envelope[]): readonly Attested[] =>
  attestedOf(envelopes.map(lineOf), ARTIFACT, attesters, []);

function factsWith(given: readonly Attested[]): Facts {
  const artifact = { artifactId: ARTIFACT, class: 'web', version: '1.0', release: 1 };
  return factsOf({ nowS: 1_795_604_400, artifact, group: 'prod', reason: 'x', stages: {} }, given);
}

const rule = (expression: string): GateRule => ({
  name: 'rule',
  message: 'no',
  expression,
  groups: ['*'],
});

describe('statements', () => {
  it('C07 provenance of another artifact is no statement about this one', () => {
    expect(() => attested(provenance('builder:ci', ci, 'b'.repeat(64)))).toThrow(
      expect.objectContaining({ code: 'E_SUBJECT' }),
    );
  });

  it('C08 a builder that its signer may not speak for, and a trusted builder by a foreign key', () => {
    for (const [builder, signer] of [
      ['builder:evil', ci],
      ['builder:second', ci],
      ['builder:ci', rebuilder],
      ['builder:ci', signerNumber(99)],
    ] as const) {
      expect(() => attested(provenance(builder, signer))).toThrow(
        expect.objectContaining({ code: 'E_BUILDER' }),
      );
    }
    expect(attested(provenance('builder:ci', ci))).toHaveLength(1);
  });

  it('statements by nobody known, of types that the attester may not state, or by revoked keys are no facts', () => {
    expect(attested(statement('test', {}, signerNumber(99)))).toEqual([]);
    expect(attested(statement('test', {}, bob))).toEqual([]);
    const lines = [lineOf(approval(bob))];
    expect(attestedOf(lines, ARTIFACT, attesters, [bob.key.keyId])).toEqual([]);
    expect(attestedOf(lines, ARTIFACT, attesters, [])).toHaveLength(1);
  });

  it('C10 a line that was taken away or an old set that was put back is not what was signed', () => {
    const world = new TrustWorld();
    world.publish(addClass(world.repository(), 'db'));
    const ref = world.release(1);
    const [first, second] = [approval(ann), approval(bob)];
    const old = addAttestations(world.repository(), ref, [first]);
    world.publish(old);
    world.publish(addAttestations(world.repository(), ref, [second]));
    expect(readAttestations(world.repository(), ref)).toHaveLength(2);
    const name = [...world.files.keys()].findLast((each) => each.includes('intoto')) ?? '';
    const whole = world.files.get(name) as Uint8Array;
    for (const bytes of [
      Buffer.from(`${lineOf(second)}\n`),
      old.find((file) => file.name.includes('intoto'))?.bytes ?? whole,
      Buffer.concat([whole, whole]),
      Buffer.from(
        Buffer.from(whole).toString().replace('"sig":"', '"sig":"A').replace(/."}/, '"}'),
      ),
    ]) {
      world.files.set(name, bytes);
      expect(() => readAttestations(world.repository(), ref)).toThrow(
        expect.objectContaining({ code: 'E_HASH' }),
      );
    }
  });
});

describe('who approves', () => {
  it('E21 nobody approves what they built', () => {
    const own = attested(provenance('builder:ann', ann), approval(annAtHome), approval(bob));
    expect(factsWith(own).approvers).toEqual(['bob']);
    expect(evaluate(rule('approvers.size() >= 2'), factsWith(own)).isAllowed).toBe(false);
  });

  it('E22 a person with two keys is one person', () => {
    const twice = attested(approval(ann), approval(annAtHome), approval(ann, 'canary'));
    expect(factsWith(twice).approvers).toEqual(['ann']);
    expect(factsWith(attested(approval(ann), approval(bob))).approvers).toEqual(['ann', 'bob']);
    expect(factsWith(attested(approval(ann, 'canary'))).approvers).toEqual([]);
  });
});

describe('rules', () => {
  const facts = factsWith(attested(provenance('builder:ci', ci), approval(bob)));

  it('P01 an error, null, a text, a number, a list and the word true are no permission', () => {
    for (const expression of [
      '1 / 0 == 1',
      'null',
      '"true"',
      '1',
      '1u',
      '[true]',
      '{"a": true}',
      'b"true"',
      'bool',
      'artifact.nothing',
      'attestations[99].attester == "ci"',
      'false',
      'approvers',
    ]) {
      expect(evaluate(rule(expression), facts), expression).toMatchObject({ isAllowed: false });
    }
    expect(evaluate(rule('group == "prod"'), facts).isAllowed).toBe(true);
  });

  it('P02 expressions that would never end are denied at the deadline', async () => {
    const list = JSON.stringify(Array.from({ length: 60 }, (_, index) => index));
    const loops = ['a', 'b', 'c', 'd', 'e'].reduceRight(
      (inner, name) => `${list}.all(${name}, ${inner})`,
      'true',
    );
    const redos = `"${'a'.repeat(5000)}!".matches("^(a+)+$")`;
    const [slow] = await judge([rule(loops)], facts, 300);
    expect(slow).toMatchObject({ isAllowed: false });
    expect(slow?.why).toContain('no answer');
    expect(await judge([rule(redos)], facts)).toMatchObject([{ isAllowed: false }]);
  });

  it('P03 a statement that is missing denies', () => {
    const asks = rule("attestations.exists(a, a.attester == 'ci')");
    expect(evaluate(asks, facts).isAllowed).toBe(true);
    expect(evaluate(asks, factsWith([])).isAllowed).toBe(false);
  });

  it('P04 a name that is no fact is refused when the rule is read', () => {
    for (const expression of [
      'nope',
      'attestations.all(a, b.attester == "ci")',
      'approver.size() > 1',
      'process.exit()',
      'a.b(',
    ]) {
      expect(() => checkRule(rule(expression))).toThrow(
        expect.objectContaining({ code: 'E_CONFIG' }),
      );
    }
    checkRule(rule('attestations.all(a, a.attester != group) && nowS > 1'));
  });

  const read = (name: string): Uint8Array =>
    readFileSync(new URL(`../../control/policy/examples/${name}`, import.meta.url));
  const gates = readDocument('gates', gatesDocument, read('gates.json'));
  const examples = readDocument('examples', examplesDocument, read('examples.json'));

  it('C09 C17 the rules that are shipped decide their examples, and each denies one', async () => {
    expect(await failedExamples(gates.rules, examples)).toEqual([]);
    const always = [{ ...rule('true || approvers.size() > 5'), name: 'two-approvals' }];
    const own = examples.examples.filter((each) => each.rule === 'two-approvals');
    expect(await failedExamples(always, { ...examples, examples: own })).toHaveLength(2);
  }, 120_000);

  it('P05 what a rule asks for cannot be taken away without a denial, and taking away never allows', () => {
    const base = examples.base as unknown as Facts;
    const named: Readonly<Record<string, string>> = {
      provenance: 'ci',
      scan: 'scanner',
      tests: 'ci',
    };
    fc.assert(
      fc.property(
        fc.constantFrom(...gates.rules),
        fc.subarray([...base.attestations]),
        fc.subarray([...base.approvers]),
        fc.subarray([...base.authors]),
        (each, attestations, approvers, authors) => {
          const fewer = { ...base, attestations, approvers, authors };
          const { isAllowed } = evaluate(each, fewer);
          // Monotonic: what less allows, more allows.
          if (isAllowed) expect(evaluate(each, base).isAllowed).toBe(true);
          const attester = named[each.name];
          if (attester === undefined) return;
          const without = base.attestations.filter((a) => a.attester !== attester);
          expect(evaluate(each, { ...base, attestations: without }).isAllowed).toBe(false);
        },
      ),
      { numRuns: 300 },
    );
  });
});

describe('what hosts accept', () => {
  const gate = signerNumber(60);
  const policy: GatesDocument = {
    schema: 'switchback.gates/1',
    verifierId: 'gate:test',
    keys: [keyOf(gate)],
    groups: ['blue'],
    rules: [rule('true')],
  };
  const digest = sha256(canonicalDocument(policy));

  interface Scene {
    readonly world: TrustWorld;
    readonly artifact: ArtifactRef;
    resolve(verdicts: readonly Envelope[], changes?: Partial<DesiredDocument>): Promise<unknown>;
  }

  function gatedWorld(): Scene {
    const world = new TrustWorld();
    world.publish(setGates(world.repository(), policy));
    const artifact = world.release(1);
    const agent = agentOf(world);
    let seq = 0;
    return {
      world,
      artifact,
      resolve: (verdicts, changes = {}) => {
        world.pin(artifact, (seq += 1), { verdicts: [...verdicts], ...changes });
        return agent.trust.resolve(assignmentOf(artifact), contextOf(world.nowMs));
      },
    };
  }

  const verdict = (
    artifact: ArtifactRef,
    changes: Partial<Parameters<typeof signVerdict>[0]> = {},
    by = gate,
  ): Envelope =>
    signVerdict(
      {
        artifactId: artifact.artifactId,
        class: 'web',
        group: 'blue',
        verifierId: 'gate:test',
        policyDigest: digest,
        inputs: [],
        atMs: 0,
        ...changes,
      },
      by,
    );

  it('E23 E24 a verdict of other rules, another stage, artifact, class, key or verifier is none', async () => {
    const { world, artifact, resolve } = gatedWorld();
    const other = world.release(2);
    const bad: Readonly<Record<string, readonly Envelope[]>> = {
      'none at all': [],
      'E23 under rules that were replaced': [verdict(artifact, { policyDigest: 'b'.repeat(64) })],
      'E24 for another stage': [verdict(artifact, { group: 'canary' })],
      'for another class': [verdict(artifact, { class: 'db' })],
      'for another artifact': [verdict(other)],
      'by another key': [verdict(artifact, {}, signerNumber(61))],
      'by another verifier': [verdict(artifact, { verifierId: 'gate:other' })],
    };
    for (const [what, verdicts] of Object.entries(bad)) {
      await expect(resolve(verdicts), what).rejects.toMatchObject({ code: 'E_VSA' });
    }
    expect(await resolve([verdict(other), verdict(artifact)])).toMatchObject({
      artifactId: artifact.artifactId,
    });
  });

  it('E23 rules that change after the pin end its verdict; what ran before keeps that of its time', async () => {
    const { world, artifact, resolve } = gatedWorld();
    const old = verdict(artifact);
    expect(await resolve([old])).not.toBeNull();
    world.publish(setGates(world.repository(), { ...policy, rules: [rule('false')] }));
    await expect(resolve([old])).rejects.toMatchObject({ code: 'E_VSA' });
    const next = world.release(2);
    const changes = { artifact: next, previous: artifact };
    expect(await resolve([old], changes)).toMatchObject({ artifactId: artifact.artifactId });
    await expect(resolve([], changes)).rejects.toMatchObject({ code: 'E_VSA' });
  });

  it('a group that the policy does not name needs no verdict', async () => {
    const { world, resolve } = gatedWorld();
    world.publish(setGates(world.repository(), { ...policy, groups: ['green'] }));
    expect(await resolve([])).not.toBeNull();
  });

  it('P06 rules without the signatures of the policy role are not loaded', async () => {
    const { world, artifact, resolve } = gatedWorld();
    expect(await resolve([verdict(artifact)])).not.toBeNull();
    const thief = { ...world.repository(), keys: [{ use: 'policy' as const, signer: bob }] };
    const open = { ...policy, groups: [] };
    expect(() => setGates(thief, open)).toThrow(expect.objectContaining({ code: 'E_SIGS' }));
    // And when the thief writes the files all the same, hosts do not take them.
    const forged = setGates({ ...thief, mayLackSignatures: true }, open);
    const files = withFiles({ read: (name) => world.files.get(name) ?? null }, forged);
    const role = readRoleDocument({ ...world.repository(), store: files }, 'policy');
    expect(role.version).toBeGreaterThan(1);
    const listed = publish(
      {
        ...world.repository(),
        keys: world.repository().keys.filter((k) => k.use !== 'policy'),
        mayLackSignatures: true,
      },
      new Map([['policy', role]]),
      [],
    );
    world.publish([...forged, ...listed]);
    const fresh = agentOf(world);
    await expect(
      fresh.trust.resolve(assignmentOf(artifact), contextOf(world.nowMs)),
    ).rejects.toMatchObject({ code: 'E_SIGS' });
  });
});
