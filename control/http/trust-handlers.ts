/** The trust repository from outside: which keys control holds, and changes that were signed elsewhere. */
import { hexOf, type PublicKey } from '#/bundle/keys.ts';
import { publishProposal } from '#/control/engine/proposals.ts';
import type { Handlers } from './handler.ts';

function shown(use: string, key: PublicKey): { use: string; keyId: string; public: string } {
  return { use, keyId: key.keyId, public: hexOf(key.bytes) };
}

export const trustHandlers: Handlers<'trustKeys' | 'trustPublish'> = {
  trustKeys: ({
    services: {
      desk: { keys, logKey, gateKey },
    },
  }) => ({
    ok: {
      keys: [
        ...keys.map(({ use, signer }) => shown(use, signer.key)),
        ...(logKey === null ? [] : [shown('log', logKey.key)]),
        ...(gateKey === null ? [] : [shown('gate', gateKey.key)]),
      ],
    },
  }),
  async trustPublish({ services, body, actor }) {
    const { documents } = await publishProposal(services.desk, body, actor);
    await services.desk.engine.settled();
    return { ok: { documents: [...documents] } };
  },
};
