import { describe, expect, it } from 'vitest';
import { hexOf, type Signer } from '#/bundle/keys.ts';
import { sealPublicKeyOf } from '#/bundle/seal.ts';
import { chooseRecipients, type Chosen } from '#/control/cli/config-set/recipients.ts';
import { signStatement } from '#/control/engine/statements.ts';
import type { Envelope } from '#/protocol/documents.ts';
import type { GroupName, HostId } from '#/protocol/ids.ts';
import { seedOf, signerNumber } from '#/test/support/trust-world.ts';

const enrolment = signerNumber(1);
const host = `h-${'1'.repeat(32)}` as HostId;
const keyOf = (number: number): string => hexOf(sealPublicKeyOf(seedOf(number)));

function answer(changes: object = {}, signer: Signer = enrolment) {
  const signed = signStatement(signer, {
    schema: 'switchback.host-statement/1',
    host,
    group: 'web' as GroupName,
    class: 'web',
    arch: 'amd64',
    signKey: hexOf(signerNumber(2).key.bytes),
    sealKey: keyOf(3),
    seq: 5,
    issuedAtMs: 1,
    ...changes,
  });
  const statement = JSON.parse(signed) as Envelope;
  return { enrolmentKey: hexOf(enrolment.key.bytes), hosts: [{ host, statement }] };
}
const choose = (
  of: ReturnType<typeof answer>,
  before: Chosen['known'] | null = null,
  accepted: string[] = ['all'],
) => chooseRecipients('web', of, before, accepted);
const accepted = choose(answer()).known;
const code = (expected: string) => expect.objectContaining({ code: expected }) as Error;

describe('X05 whom secrets are sealed for', () => {
  it('a host is refused that was compared', () => {
    const { recipients, strangers } = choose(answer(), accepted, []);
    expect([recipients.map((one) => one.host), strangers]).toEqual([[host], []]);
  });

  it('a new host, or one with another key, is sealed for unasked', () => {
    expect(choose(answer(), null, [])).toMatchObject({
      recipients: [],
      strangers: [{ why: 'new' }],
    });
    const other = choose(answer({ sealKey: keyOf(4) }), accepted, []);
    expect(other).toMatchObject({ recipients: [], strangers: [{ host, why: 'other key' }] });
    // What was kept stays what it was, until somebody accepts the other.
    expect(other.known).toEqual(accepted);
  });

  it('another enrolment key than the one that was kept is believed', () => {
    const thief = {
      ...answer({}, signerNumber(9)),
      enrolmentKey: hexOf(signerNumber(9).key.bytes),
    };
    expect(() => choose(thief, accepted)).toThrow(code('E_SIGS'));
  });

  it('a statement counts that another key signed', () => {
    expect(() => choose(answer({}, signerNumber(9)), accepted)).toThrow(code('E_SIGS'));
  });

  it('the statement of another host or group counts', () => {
    const other = { host: `h-${'2'.repeat(32)}` };
    expect(() => choose(answer(other))).toThrow(code('E_SEAL'));
    expect(() => choose(answer({ group: 'db' }))).toThrow(code('E_SEAL'));
  });

  it('an older statement than the last one counts: the key of before is sealed to', () => {
    expect(() => choose(answer({ seq: 4 }), accepted)).toThrow(code('E_SEAL'));
  });

  it('B05 a key of small order is accepted', () => {
    expect(() => choose(answer({ sealKey: '00'.repeat(32) }))).toThrow(code('E_SEAL'));
  });
});
