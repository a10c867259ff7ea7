/** Requests of attackers to a real control, with a real host beside it. The requests one by one: test/integration/control. */
import { randomBytes } from 'node:crypto';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, it } from 'vitest';
import { STATEMENT_PAYLOAD_TYPE, STATEMENT_TYPE, PROVENANCE_TYPE } from '#/bundle/attestation.ts';
import { canonicalDocument } from '#/bundle/canonical.ts';
import { signEnvelope } from '#/bundle/dsse.ts';
import { hexOf, type Signer, signerOf } from '#/bundle/keys.ts';
import type { GateRule } from '#/bundle/trust/gates.ts';
import { openDataDir } from '#/control/data-dir.ts';
import { repositoryOf } from '#/control/engine/desk.ts';
import { APPROVAL_TYPE } from '#/control/policy/facts.ts';
import { setAttesters, setGates } from '#/control/trust/gates.ts';
import { encodeKeyFile, storedKeyOf } from '#/control/trust/key-file.ts';
import { KEY_CHANGE_PAYLOAD_TYPE } from '#/protocol/agent-plane.ts';
import type { JsonValue } from '#/protocol/errors.ts';
import type { ArtifactId } from '#/protocol/ids.ts';
import { codeIn, codeOf, GuardedControl } from '#/test/support/attack/guarded-control.ts';
import { enrolWith, signedHeaders, TestHost } from '#/test/support/control/world.ts';
import { signerNumber } from '#/test/support/trust-world.ts';

let guarded: GuardedControl;
let host: TestHost;
beforeAll(async () => {
  guarded = await GuardedControl.start();
  host = await newHost();
});
afterAll(() => guarded[Symbol.asyncDispose]());

const newHost = (): Promise<TestHost> => TestHost.enrol(guarded.atPublicUrl, 'db', 'web');
const admin = () => guarded.world.admin;
const url = (path: string): string => `${guarded.world.control.url}${path}`;
const bodyOf = (id: string = host.id, bootId = 'b'): Uint8Array<ArrayBuffer> =>
  Buffer.from(JSON.stringify({ host: id, bootId }));
/** Hosts sign for the public address of control. */
const signed = (body: Uint8Array, by: Signer, at: { nowS?: number; nonce?: string } = {}) =>
  signedHeaders(`${guarded.publicUrl}/agent/v1/token`, 'POST', body, by, at);
const post = (headers: Record<string, string>, body = bodyOf()): Promise<string> =>
  codeIn(fetch(url('/agent/v1/token'), { method: 'POST', headers, body }));
const stranger = signerOf(randomBytes(32));
const refuses = (code: string, attack: () => Promise<unknown>) => guarded.refuses(code, attack);
const joinToken = async (ttlSeconds = 60): Promise<string> =>
  (await admin().call('joinTokenCreate', { body: { group: 'db' as never, ttlSeconds } })).token;
const enrols = async (
  by: Signer,
  token: string,
  changes: Parameters<typeof enrolWith>[3] = {},
): Promise<string> => {
  const { status, text } = await enrolWith(guarded.atPublicUrl, by, { token }, changes);
  return status === 201 ? 'accepted' : (JSON.parse(text) as { code: string }).code;
};

describe('requests of hosts', () => {
  it('E01 no signature', () =>
    refuses('E_UNAUTHENTICATED', () => post({ 'content-type': 'application/json' })));

  it('E02 an unknown key', () =>
    refuses('E_UNAUTHENTICATED', () => post(signed(bodyOf(), stranger))));

  it('E03 the key of a host that was forgotten', async () => {
    const gone = await newHost();
    await admin().call('hostAction', {
      params: { host: gone.id },
      body: { action: 'forget', reason: 'sold' },
    });
    await refuses('E_UNAUTHENTICATED', () =>
      post(signed(bodyOf(gone.id), gone.signer), bodyOf(gone.id)),
    );
  });

  it('E04 the key of one host for another', async () => {
    const body = bodyOf(guarded.witness.id);
    await refuses('E_FORBIDDEN', () => post(signed(body, host.signer), body));
  });

  it('E05 a changed body under the old digest', () =>
    refuses('E_UNAUTHENTICATED', () => post(signed(bodyOf(), host.signer), bodyOf(host.id, 'c'))));

  it('E06 a request that was heard before', async () => {
    const headers = signed(bodyOf(), host.signer);
    await post(headers);
    await refuses('E_UNAUTHENTICATED', () => post(headers));
  });

  it.each([-600, 600])('E07 a signature made %i s from now', (off) =>
    refuses('E_UNAUTHENTICATED', () =>
      post(signed(bodyOf(), host.signer, { nowS: Math.floor(Date.now() / 1000) + off })),
    ),
  );

  it('E08 a component that is not covered', () => {
    const headers = signed(bodyOf(), host.signer);
    const input = (headers['signature-input'] ?? '').replace(' "content-digest"', '');
    return refuses('E_UNAUTHENTICATED', () => post({ ...headers, 'signature-input': input }));
  });

  it('E09 a signature for another application', () => {
    const headers = signed(bodyOf(), host.signer);
    const input = (headers['signature-input'] ?? '').replace('switchback-agent-v1', 'other');
    return refuses('E_UNAUTHENTICATED', () => post({ ...headers, 'signature-input': input }));
  });

  it('E10 two signatures, one of them bad', () => {
    const headers = signed(bodyOf(), host.signer);
    const input = `${headers['signature-input']}, x=("@method");created=1;keyid="a"`;
    const signature = `${headers['signature']}, x=:AAAA:`;
    return refuses('E_UNAUTHENTICATED', () =>
      post({ ...headers, 'signature-input': input, signature }),
    );
  });

  it('E11 a clone whose reports do not grow: quarantined, and offered nothing', async () => {
    const original = await newHost();
    const clone = new TestHost(original.world, original.signer, original.id);
    Object.assign(clone, { token: original.token, seq: original.seq });
    await original.report([]);
    // The clone does not know of that report, and is told where to go on; then the original does not know of the clone's.
    const { body } = await clone.report([]);
    clone.seq = (body['details'] as { lastSeq: number }).lastSeq;
    await clone.report([]);
    original.seq = clone.seq;
    await refuses('E_FORKED', async () => (await original.report([])).body['code']);
    await refuses('E_FORKED', async () => (await clone.poll()).body.code);
  });

  it('E12 the signature again in another spelling', () => {
    const headers = signed(bodyOf(), host.signer);
    const bytes = Buffer.from((headers['signature'] ?? '').slice(4, -1), 'base64');
    const order = 2n ** 252n + 27742317777372353535851937790883648493n;
    let s = bytes.subarray(32).reduceRight((sum, byte) => (sum << 8n) | BigInt(byte), 0n) + order;
    for (let at = 32; at < 64; at += 1, s >>= 8n) bytes[at] = Number(s & 255n);
    const signature = `sb=:${bytes.toString('base64')}:`;
    return refuses('E_UNAUTHENTICATED', () => post({ ...headers, signature }));
  });

  it('E13 a join token that was used', async () => {
    const token = await joinToken();
    await enrols(signerOf(randomBytes(32)), token);
    await refuses('E_TOKEN', () => enrols(signerOf(randomBytes(32)), token));
  });

  it('E13 a token for a host that exists', async () => {
    const token = await joinToken();
    await refuses('E_CONFLICT', () => enrols(host.signer, token));
  });

  it('E14 no proof that the key is held', async () => {
    const token = await joinToken();
    await refuses('E_UNAUTHENTICATED', () =>
      enrols(signerOf(randomBytes(32)), token, { signedBy: stranger }),
    );
  });

  it('E15 new keys that only the new key signed', async () => {
    const next = signerOf(randomBytes(32));
    const change = signEnvelope(
      KEY_CHANGE_PAYLOAD_TYPE,
      canonicalDocument({
        schema: 'switchback.key-change/1',
        host: host.id,
        oldKeyId: host.signer.key.keyId,
        signKey: hexOf(next.key.bytes),
        sealKey: hexOf(randomBytes(32)),
      }),
      [next],
    );
    const body = Buffer.from(JSON.stringify({ host: host.id, change }));
    const to = `${guarded.publicUrl}/agent/v1/rotate`;
    const headers = signedHeaders(to, 'POST', body, host.signer);
    await refuses('E_SIGS', () =>
      codeIn(fetch(url('/agent/v1/rotate'), { method: 'POST', headers, body })),
    );
  });
});

describe('requests of operators', () => {
  it('E16 an operator of one group pins another', async () => {
    const { token } = await admin().call('apiTokenCreate', {
      body: { name: 'db-only', role: 'operator', groups: ['db' as never] },
    });
    await refuses('E_FORBIDDEN', () =>
      codeOf(
        guarded.world.operator(token).call('groupPin', {
          params: { group: 'web' as never },
          body: { artifactId: guarded.v1, reason: 'mine now' },
        }),
      ),
    );
  });

  describe('a group that two people pin together', () => {
    const publishes = async (file: string): Promise<string> => {
      const { stderr } = await guarded.op.run('trust', 'publish', file);
      return /^E_[A-Z]+/.exec(stderr)?.[0] ?? 'accepted';
    };
    const pin = (...more: readonly string[]): Promise<string> =>
      guarded.op.ok('trust', 'pin', 'web', '1.1.0', '--reason', 'again', ...more);

    beforeAll(async () => {
      for (const name of ['ann.json', 'bob.json']) guarded.op.key(name, 'operator');
      const keys = ['ann.json', 'bob.json'];
      await guarded.op.ok(
        ...['trust', 'harden', 'grp-web', '--to', ...keys, '--threshold', '2'],
        ...['--key', ...keys, '--reason', 'two people pin'],
      );
    });

    it('E17 a pin with one signature of two', async () => {
      await pin('--key', 'ann.json', '--out', 'one.pin');
      await refuses('E_SIGS', () => publishes('one.pin'));
    });

    it('E18 a pin that was published before', async () => {
      await pin('--key', 'ann.json', 'bob.json', '--out', 'both.pin');
      await guarded.op.ok('trust', 'publish', 'both.pin');
      await refuses('E_CONFLICT', () => publishes('both.pin'));
    });
  });

  it('E20 a page of another site', () =>
    refuses('E_FORBIDDEN', () =>
      codeIn(
        fetch(url('/api/v1/halt'), {
          method: 'POST',
          headers: {
            authorization: `Bearer ${guarded.world.adminToken}`,
            origin: 'https://evil.invalid',
            'content-type': 'application/json',
          },
          body: '{"reason":"x"}',
        }),
      ),
    ));

  it('E20 keys that mean something to JavaScript', () =>
    refuses('E_SCHEMA', () =>
      codeIn(
        fetch(url('/api/v1/halt'), {
          method: 'POST',
          headers: {
            authorization: `Bearer ${guarded.world.adminToken}`,
            'content-type': 'application/json',
          },
          body: '{"reason":"x","constructor":{"prototype":{}}}',
        }),
      ),
    ));

  it('A05 a key whose id is not its hash', async () => {
    const key = storedKeyOf('operator', randomBytes(32));
    const text = Buffer.from(encodeKeyFile([key])).toString();
    const wrong = text.replace(key.signer.key.keyId, '0'.repeat(64));
    writeFileSync(join(guarded.directory, 'wrong.json'), wrong, { mode: 0o600 });
    const before = await guarded.op.run('trust', 'status', '--json');
    const { exitCode, stderr } = await guarded.op.run(
      ...['trust', 'rotate', 'grp-web', '--to', 'wrong.json', '--reason', 'x'],
    );
    const after = await guarded.op.run('trust', 'status', '--json');
    // Refused where it is read: control never hears of it, whoever runs the command is told.
    await guarded.refusesLocally('E_KEYID', async () =>
      before.stdout === after.stdout && exitCode !== 0 && stderr.includes('E_KEYID')
        ? 'E_KEYID'
        : stderr,
    );
  });
});

const [ann, annAtHome, bob] = [71, 72, 73].map(signerNumber) as [Signer, Signer, Signer];
const BUILDER = 'builder:ci';
const EXAMPLES = join(import.meta.dirname, '../../../control/policy/examples/examples.json');

describe('gates', () => {
  let artifactId: ArtifactId;

  async function policy(rules: readonly Omit<GateRule, 'message' | 'groups'>[]): Promise<void> {
    const { desk } = guarded.world.control;
    const { gateKey } = await openDataDir(guarded.world.dir);
    const keyOf = (signer: Signer): string => hexOf(signer.key.bytes);
    await desk.engine.change(async (draft) => {
      await draft.publish(
        setAttesters(repositoryOf(desk, draft), {
          schema: 'switchback.attesters/1',
          attesters: [
            {
              name: 'ann',
              keys: [keyOf(ann), keyOf(annAtHome)],
              types: [APPROVAL_TYPE, PROVENANCE_TYPE],
              builders: [BUILDER],
            },
            { name: 'bob', keys: [keyOf(bob)], types: [APPROVAL_TYPE], builders: [] },
          ],
        }),
      );
      await draft.publish(
        setGates(repositoryOf(desk, draft), {
          schema: 'switchback.gates/1',
          verifierId: 'gate:test',
          keys: [hexOf(gateKey?.key.bytes as Uint8Array)],
          groups: ['db'],
          rules: rules.map((rule) => ({ ...rule, message: rule.name, groups: ['*'] })),
        }),
      );
    });
  }
  const pins = (): Promise<string> =>
    codeOf(
      admin().call('groupPin', {
        params: { group: 'db' as never },
        body: { artifactId, reason: 'weekly' },
      }),
    );
  const states = (type: string, predicate: JsonValue, by: Signer, about: string = artifactId) => {
    const payload = canonicalDocument({
      _type: STATEMENT_TYPE,
      subject: [{ digest: { sha256: about } }],
      predicateType: type,
      predicate,
    });
    return codeOf(
      admin().call('releaseAttest', {
        params: { artifact: artifactId },
        body: { statements: [signEnvelope(STATEMENT_PAYLOAD_TYPE, payload, [by])] },
      }),
    );
  };
  const approves = (by: Signer): Promise<string> => states(APPROVAL_TYPE, { group: 'db' }, by);
  const provenance = (builder: string, parameters: JsonValue = {}): JsonValue => ({
    buildDefinition: { buildType: 'x', externalParameters: parameters },
    runDetails: { builder: { id: builder } },
  });
  const two = [{ name: 'two-approvals', expression: 'approvers.size() >= 2' }];

  beforeAll(async () => {
    artifactId = await guarded.world.release(2);
    await policy(two);
  });

  it('P03 statements that are missing', () => refuses('E_GATE', pins));

  it('C07 provenance of another artifact', () =>
    refuses('E_SUBJECT', () => states(PROVENANCE_TYPE, provenance(BUILDER), ann, 'c'.repeat(64))));

  it('C08 a builder that its signer may not speak for', () =>
    refuses('E_BUILDER', () => states(PROVENANCE_TYPE, provenance('builder:other'), ann)));

  it('E22 one person approves with two keys', async () => {
    await approves(ann);
    await approves(annAtHome);
    await refuses('E_GATE', pins);
  });

  it('P05 an approval that a rule names is not there', async () => {
    await policy([{ name: 'bob', expression: 'approvers.exists(a, a == "bob")' }]);
    await refuses('E_GATE', pins);
    await policy(two);
  });

  it('E21 who built it approves it', async () => {
    await states(PROVENANCE_TYPE, provenance(BUILDER, { debug: 'yes' }), ann);
    await approves(bob);
    await refuses('E_GATE', pins);
  });

  it('C09 parameters of the build that nobody knows', async () => {
    await policy([
      {
        name: 'no-parameters',
        expression:
          'attestations.exists(a, has(a.predicate.buildDefinition) && a.predicate.buildDefinition.externalParameters.size() == 0)',
      },
    ]);
    await refuses('E_GATE', pins);
  });

  it('C17 two builders that do not agree', async () => {
    await policy([{ name: 'two-builders', expression: 'authors.size() >= 2' }]);
    await refuses('E_GATE', pins);
  });

  it('C10 statements that are not there any more', async () => {
    await policy([{ name: 'scanned', expression: 'attestations.exists(a, a.type == "scan")' }]);
    await refuses('E_GATE', pins);
  });

  it.each(['null', '"true"', '1', 'artifact.nothing', '1 / 0 == 1'])(
    'P01 a rule that gives %s',
    async (expression) => {
      await policy([{ name: 'odd', expression }]);
      await refuses('E_GATE', pins);
    },
  );

  it('P02 a rule that does not end', async () => {
    const list = `[${Array.from({ length: 300 }, (_, n) => n).join(',')}]`;
    const loops = `${list}.all(a, ${list}.all(b, ${list}.all(c, ${list}.all(d, a + b + c + d >= 0))))`;
    await policy([{ name: 'endless', expression: loops }]);
    await refuses('E_GATE', pins);
  });

  it('P04 a name that is no fact', () =>
    guarded.refusesLocally('E_CONFIG', () =>
      codeOf(
        guarded.op.run('gate', 'test', writeGates('nobody == 1'), EXAMPLES).then(({ stderr }) => {
          throw Object.assign(new Error(stderr), { code: /E_[A-Z]+/.exec(stderr)?.[0] });
        }),
      ),
    ));

  function writeGates(expression: string): string {
    const gates = {
      schema: 'switchback.gates/1',
      verifierId: 'gate:test',
      keys: [hexOf(ann.key.bytes)],
      groups: ['db'],
      rules: [{ name: 'r', message: 'r', expression, groups: ['*'] }],
    };
    writeFileSync(join(guarded.directory, 'gates.json'), JSON.stringify(gates));
    return 'gates.json';
  }
});
