/** Policy gates of a real control: denied and allowed pins, their verdicts at a host, statements, and what the log says. */
import { afterEach, describe, expect, it } from 'vitest';
import { STATEMENT_PAYLOAD_TYPE, STATEMENT_TYPE } from '#/bundle/attestation.ts';
import { canonicalDocument } from '#/bundle/canonical.ts';
import { signEnvelope } from '#/bundle/dsse.ts';
import { hexOf, type Signer } from '#/bundle/keys.ts';
import { readDocument } from '#/bundle/trust/documents.ts';
import type { GatesDocument } from '#/bundle/trust/gates.ts';
import { openDataDir } from '#/control/data-dir.ts';
import { repositoryOf } from '#/control/engine/desk.ts';
import { APPROVAL_TYPE } from '#/control/policy/facts.ts';
import { setAttesters, setGates } from '#/control/trust/gates.ts';
import { readRoleDocument, readTarget } from '#/control/trust/repository.ts';
import { type DesiredDocument, desiredDocument, type Envelope } from '#/protocol/documents.ts';
import type { JsonValue } from '#/protocol/errors.ts';
import { startWorld, type World } from '#/test/support/control/world.ts';
import { signerNumber } from '#/test/support/trust-world.ts';

let world: World;
afterEach(async () => {
  await world[Symbol.asyncDispose]();
});

const [ann, bob] = [signerNumber(31), signerNumber(32)] as const;

function statement(type: string, predicate: JsonValue, by: Signer, artifactId: string): Envelope {
  const payload = canonicalDocument({
    _type: STATEMENT_TYPE,
    subject: [{ digest: { sha256: artifactId } }],
    predicateType: type,
    predicate,
  });
  return signEnvelope(STATEMENT_PAYLOAD_TYPE, payload, [by]);
}

/** A control whose group `prod` asks for two approvals. */
async function gated(changes: Partial<GatesDocument> = {}): Promise<void> {
  world = await startWorld();
  const { gateKey } = await openDataDir(world.dir);
  const { desk } = world.control;
  const attester = (name: string, by: Signer) => ({
    name,
    keys: [hexOf(by.key.bytes)],
    types: [APPROVAL_TYPE],
    builders: [],
  });
  await desk.engine.change(async (draft) => {
    const attesters = [attester('ann', ann), attester('bob', bob)];
    const document = { schema: 'switchback.attesters/1' as const, attesters };
    await draft.publish(setAttesters(repositoryOf(desk, draft), document));
    const gates: GatesDocument = {
      schema: 'switchback.gates/1',
      verifierId: 'gate:test',
      keys: [hexOf(gateKey?.key.bytes as Uint8Array)],
      groups: ['prod'],
      rules: [
        {
          name: 'two-approvals',
          message: 'two people approved it',
          expression: 'approvers.size() >= 2',
          groups: ['*'],
        },
      ],
      ...changes,
    };
    await draft.publish(setGates(repositoryOf(desk, draft), gates));
  });
}

function pinnedDocument(): DesiredDocument {
  const read = (name: string): Uint8Array | null =>
    world.control.engine.fleet.trust.get(name) ?? null;
  const repository = { store: { read }, keys: [], nowMs: 0 };
  const role = readRoleDocument(repository, 'grp-prod');
  const bytes = readTarget(repository, role, 'groups/prod/desired.json') as Uint8Array;
  return readDocument('pin', desiredDocument, bytes);
}

describe('gates', () => {
  it('P03 a pin without its approvals is denied and told; with them it carries a verdict', async () => {
    await gated();
    const group = await world.group('prod');
    await world.group('dev');
    const artifactId = await world.release(1);
    const pin = (into: string): Promise<unknown> =>
      world.admin.call('groupPin', {
        params: { group: into as never },
        body: { artifactId, reason: 'weekly' },
      });
    await expect(pin(group)).rejects.toMatchObject({ code: 'E_GATE' });
    // A group that the policy does not name is pinned as before.
    await pin('dev');
    for (const [by, into] of [
      [ann, 'prod'],
      [bob, 'dev'],
    ] as const) {
      const statements = [statement(APPROVAL_TYPE, { group: into }, by, artifactId)];
      await world.admin.call('releaseAttest', {
        params: { artifact: artifactId },
        body: { statements },
      });
    }
    await expect(pin(group)).rejects.toMatchObject({ code: 'E_GATE' });
    await world.admin.call('releaseAttest', {
      params: { artifact: artifactId },
      body: { statements: [statement(APPROVAL_TYPE, { group: 'prod' }, bob, artifactId)] },
    });
    await pin(group);
    expect(pinnedDocument().verdicts).toHaveLength(1);
    const { items } = await world.admin.call('audit', { query: { limit: '1000' } });
    const told = items.filter((item) => item.type.startsWith('gate.')).map((item) => item.type);
    expect(told).toEqual(['gate.deny', 'gate.deny', 'gate.pass']);
    // Asked for a pin that is signed elsewhere: the same answer.
    const asked = await world.admin.call('groupVerdict', {
      params: { group },
      body: { artifactId, reason: 'offline' },
    });
    expect(asked.verdicts).toHaveLength(1);
  });

  it('the next pin keeps the verdict of what it replaces', async () => {
    await gated({
      rules: [{ name: 'all', message: 'all', expression: 'true', groups: ['*'] }],
    });
    const group = await world.group('prod');
    const host = await world.host(group);
    for (const release of [1, 2]) {
      const artifactId = await world.release(release);
      await world.admin.call('groupPin', {
        params: { group },
        body: { artifactId, reason: 'weekly' },
      });
      await host.follow();
      await host.follow();
    }
    expect(pinnedDocument().previous?.release).toBe(1);
    expect(pinnedDocument().verdicts).toHaveLength(2);
  });

  it('C07 a statement about another artifact is refused, and a rule for no group denies', async () => {
    await gated({ rules: [] });
    const group = await world.group('prod');
    const artifactId = await world.release(1);
    const statements = [statement(APPROVAL_TYPE, { group: 'prod' }, ann, 'b'.repeat(64))];
    await expect(
      world.admin.call('releaseAttest', { params: { artifact: artifactId }, body: { statements } }),
    ).rejects.toMatchObject({ code: 'E_SUBJECT' });
    await expect(
      world.admin.call('groupPin', { params: { group }, body: { artifactId, reason: 'x' } }),
    ).rejects.toMatchObject({ code: 'E_GATE' });
  });
});
