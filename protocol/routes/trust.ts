/** Trust metadata and proposals. */
import { heldKeys, PROPOSAL_MAX_BYTES, proposalAnswer, proposalDocument } from '../proposal.ts';
import { reading, change, type Route } from './route.ts';

export const trustRoutes = {
  trustKeys: {
    method: 'GET',
    path: '/api/v1/trust/keys',
    plane: 'operator',
    permission: 'view',
    summary: 'The public halves of the keys that control holds.',
    ok: heldKeys,
    errors: reading,
  },
  trustPublish: {
    method: 'POST',
    path: '/api/v1/trust/proposals',
    plane: 'operator',
    permission: 'publish',
    summary:
      'Publish a change of the trust repository that was signed elsewhere; control adds its own signatures where its keys are still listed.',
    body: proposalDocument,
    maxBodyBytes: PROPOSAL_MAX_BYTES,
    ok: proposalAnswer,
    errors: [
      ...change,
      'E_SIGS',
      'E_HASH',
      'E_EXPIRED',
      'E_PARSE',
      'E_CLASS',
      'E_REVOKED',
      'E_PIN',
    ],
  },
} as const satisfies Record<string, Route>;
