/** Config sets, as they are listed, and whom their secrets can be sealed for. */
import { decodeEnvelope } from '#/bundle/dsse.ts';
import { hexOf } from '#/bundle/keys.ts';
import { configViews } from '#/control/engine/configs.ts';
import { Problem } from '#/protocol/errors.ts';
import type { Handlers } from './handler.ts';

export const configHandlers: Handlers<'configList' | 'groupRecipients'> = {
  configList: ({ services, nowMs }) => ({ ok: { items: [...configViews(services.desk, nowMs)] } }),
  groupRecipients({ services, params }) {
    const { engine, enrolment } = services.desk;
    if (!engine.fleet.groups.has(params.group))
      throw new Problem('E_NOT_FOUND', `there is no group ${params.group}`);
    const ids = [...(engine.fleet.hostsOf.get(params.group) ?? [])].toSorted();
    const hosts = ids.flatMap((id) => {
      const host = engine.fleet.hosts.get(id);
      // A clone of a host would open what is sealed for it (T11).
      if (host === undefined || host.quarantine !== null) return [];
      return [{ host: id, statement: decodeEnvelope(Buffer.from(host.statement)) }];
    });
    return { ok: { enrolmentKey: hexOf(enrolment.key.bytes), hosts } };
  },
};
