/** The trust repository from outside: which keys control holds, and changes that were signed elsewhere. */
import { hexOf } from '#/bundle/keys.ts';
import { publishProposal } from '#/control/engine/proposals.ts';
import type { Handlers } from './handler.ts';

export const trustHandlers: Handlers<'trustKeys' | 'trustPublish'> = {
  trustKeys: ({ services }) => ({
    ok: {
      keys: services.desk.keys.map(({ use, signer }) => ({
        use,
        keyId: signer.key.keyId,
        public: hexOf(signer.key.bytes),
      })),
    },
  }),
  async trustPublish({ services, body, actor }) {
    const { documents } = await publishProposal(services.desk, body, actor);
    await services.desk.engine.settled();
    return { ok: { documents: [...documents] } };
  },
};
