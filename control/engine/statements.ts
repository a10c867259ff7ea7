/** Host statements: what control vouches for about a host, signed by the enrolment key. */
import { canonicalDocument } from '#/bundle/canonical.ts';
import { signEnvelope } from '#/bundle/dsse.ts';
import type { Signer } from '#/bundle/keys.ts';
import {
  HOST_STATEMENT_PAYLOAD_TYPE,
  type HostStatement,
  type SignedTime,
  TIME_PAYLOAD_TYPE,
} from '#/protocol/agent-plane.ts';
import type { Envelope } from '#/protocol/documents.ts';
import type { HostId } from '#/protocol/ids.ts';

/** The time of control as the answer to this question of this host (D07). */
export function signTime(signer: Signer, host: HostId, nonce: string, atMs: number): Envelope {
  const time: SignedTime = { schema: 'switchback.time/1', host, nonce, atMs };
  return signEnvelope(TIME_PAYLOAD_TYPE, canonicalDocument(time), [signer]);
}

/** The statement as the JSON text of its envelope. */
export function signStatement(signer: Signer, statement: HostStatement): string {
  return JSON.stringify(
    signEnvelope(HOST_STATEMENT_PAYLOAD_TYPE, canonicalDocument(statement), [signer]),
  );
}
