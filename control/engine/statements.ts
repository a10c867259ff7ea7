/** Host statements: what control vouches for about a host, signed by the enrolment key. */
import { canonicalDocument } from '#/bundle/canonical.ts';
import { signEnvelope } from '#/bundle/dsse.ts';
import type { Signer } from '#/bundle/keys.ts';
import { HOST_STATEMENT_PAYLOAD_TYPE, type HostStatement } from '#/protocol/agent-plane.ts';

/** The statement as the JSON text of its envelope. */
export function signStatement(signer: Signer, statement: HostStatement): string {
  return JSON.stringify(
    signEnvelope(HOST_STATEMENT_PAYLOAD_TYPE, canonicalDocument(statement), [signer]),
  );
}
