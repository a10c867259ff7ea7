/** Summary, events, audit, api tokens, metrics, health. */
import { activeRollouts } from '#/control/engine/fleet.ts';
import { createApiToken, revokeApiToken } from '#/control/engine/tokens.ts';
import { groupView, hostView, releaseView, rolloutView } from '#/control/engine/views.ts';
import type { ApiToken } from '#/control/store/port.ts';
import { hostConditions, type HostCondition } from '#/protocol/host.ts';
import openApi from '#/protocol/openapi.json' with { type: 'json' };
import type { ApiTokenView, SummaryView } from '#/protocol/operator-plane.ts';
import type { Handlers, Services } from './handler.ts';
import { metricsText } from './metrics.ts';

type SystemRoute =
  | 'summary'
  | 'events'
  | 'audit'
  | 'auditReports'
  | 'apiTokenCreate'
  | 'apiTokenList'
  | 'apiTokenRevoke'
  | 'metrics'
  | 'healthz'
  | 'openapi';

/** Hosts that are named one by one; the rest is a number. */
const MAX_ATTENTION = 50;

function apiTokenView(token: ApiToken): ApiTokenView {
  const { id, name, role, createdAtMs, expiresAtMs, revokedAtMs, groups } = token;
  return { id, name, role, createdAtMs, expiresAtMs, revokedAtMs, groups };
}

/** How many hosts are in each condition. */
export function conditionCounts(services: Services): Record<HostCondition, number> {
  const { engine } = services.desk;
  const counts = Object.fromEntries(hostConditions.map((c) => [c, 0])) as Record<
    HostCondition,
    number
  >;
  for (const group of engine.fleet.groups.values()) {
    const scene = engine.scene(group);
    for (const host of scene.hosts) counts[hostView(engine.fleet, scene, host).condition] += 1;
  }
  return counts;
}

function attentionOf(services: Services): SummaryView['attention'] {
  const { engine } = services.desk;
  const { fleet } = engine;
  const list: SummaryView['attention'] = [];
  for (const halt of fleet.halts.values())
    list.push({
      words: `${halt.scope} is halted by ${halt.actor}: ${halt.reason}`,
      act: `switchback halt --lift${halt.scope === 'fleet' ? '' : ` --group ${halt.scope}`} --reason "…"`,
      link: '/api/v1/halt',
    });
  for (const release of fleet.releases.values()) {
    const { hostsRunning, pinnedBy, version, revokedReason } = releaseView(fleet, release);
    if (revokedReason === null || hostsRunning + pinnedBy.length === 0) continue;
    const pinned = pinnedBy.length === 0 ? '' : `, pinned by ${pinnedBy.join(', ')}`;
    list.push({
      words: `${release.name}/${version} was revoked (${revokedReason}) and still runs on ${hostsRunning} hosts${pinned}`,
      act: `switchback pin ${pinnedBy[0] ?? 'GROUP'} ANOTHER-RELEASE --reason "…"`,
      link: `/api/v1/releases/${release.artifactId}`,
    });
  }
  for (const rollout of activeRollouts(fleet))
    if (rollout.state !== 'running')
      list.push({
        words: `rollout ${rollout.id} of ${rollout.group} is ${rollout.state}: ${rollout.words}`,
        act: `switchback rollout show ${rollout.id}; then resume or abort it`,
        link: `/api/v1/rollouts/${rollout.id}`,
      });
  for (const group of fleet.groups.values()) {
    const scene = engine.scene(group);
    for (const host of scene.hosts) {
      if (list.length >= MAX_ATTENTION) return list;
      const { condition, why } = hostView(fleet, scene, host);
      if (condition === 'quarantined' || condition === 'needs-attention' || condition === 'failed')
        list.push({
          words: `host ${host.id} is ${condition}: ${why}`,
          act: `switchback host why ${host.id}`,
          link: `/api/v1/hosts/${host.id}/why`,
        });
    }
  }
  return list;
}

function summaryOf(services: Services, nowMs: number): SummaryView {
  const { engine } = services.desk;
  const { fleet } = engine;
  const waiting = [...fleet.hosts.values()].filter(
    (host) => host.observedEpoch < fleet.epoch,
  ).length;
  return {
    asOfMs: nowMs,
    epoch: fleet.epoch,
    observing:
      fleet.isRestored && waiting > 0
        ? `restored from a backup: ${waiting} hosts have not reported since`
        : null,
    shedLevel: services.gauge.level,
    pollsPerMinute: services.gauge.pollsPerMinute,
    halts: [...fleet.halts.values()],
    hosts: conditionCounts(services),
    hostsTotal: fleet.hosts.size,
    groups: [...fleet.groups.values()].map((group) => groupView(engine, group)),
    rollouts: activeRollouts(fleet).flatMap((rollout) => {
      const group = fleet.groups.get(rollout.group);
      return group === undefined ? [] : [rolloutView(fleet, engine.scene(group), rollout)];
    }),
    attention: attentionOf(services),
  };
}

export const systemHandlers: Handlers<SystemRoute> = {
  summary: ({ services, nowMs }) => ({ ok: summaryOf(services, nowMs) }),
  events({ services, query, request }) {
    const resume = request.headers.get('last-event-id') ?? query.after;
    const { engine } = services.desk;
    const after = resume === undefined ? engine.fleet.lastAuditId : Number(resume);
    const stream = services.hub.subscribe(engine.store, after, services.stopping);
    return {
      ok: stream,
      headers: { 'content-type': 'text/event-stream', 'cache-control': 'no-store' },
    };
  },
  async audit({ services, query }) {
    const after = Number(query.after ?? 0);
    const items = await services.desk.engine.store.auditAfter(
      after,
      query.limit,
      query.subject ?? null,
    );
    const last = items.at(-1);
    const isMore = items.length === query.limit && last !== undefined;
    return { ok: { items: [...items], nextCursor: isMore ? String(last.id) : null } };
  },
  async auditReports({ services, query }) {
    const { fleet, store } = services.desk.engine;
    const ids = [...fleet.hosts.keys()].sort().filter((id) => id > (query.cursor ?? ''));
    const shown = ids.slice(0, query.limit);
    const items = [];
    for (const id of shown) {
      const report = await store.report(id, fleet.hosts.get(id)?.seq ?? 0);
      if (report !== null) items.push({ host: id, seq: report.seq, envelope: report.envelope });
    }
    return { ok: { items, nextCursor: ids.length > shown.length ? (shown.at(-1) ?? null) : null } };
  },
  async apiTokenCreate({ services, body, actor }) {
    const order = {
      name: body.name,
      role: body.role,
      ttlSeconds: body.ttlSeconds ?? null,
      groups: body.groups ?? null,
    };
    const { token, stored } = await createApiToken(services.desk, order, actor);
    return { ok: { ...apiTokenView(stored), token } };
  },
  apiTokenList({ services }) {
    const tokens = [...services.desk.engine.fleet.apiTokens.values()];
    return { ok: { items: tokens.map(apiTokenView), nextCursor: null } };
  },
  async apiTokenRevoke({ services, params, actor }) {
    await revokeApiToken(services.desk, params.id, actor);
    return { ok: undefined, status: 204 };
  },
  metrics: ({ services, nowMs }) => ({
    ok: metricsText(services, conditionCounts(services), nowMs),
    headers: { 'content-type': 'text/plain; version=0.0.4; charset=utf-8' },
  }),
  async healthz({ services }) {
    await services.desk.engine.store.check();
    return { ok: { ok: true, version: services.version } };
  },
  openapi: () => ({
    ok: `${JSON.stringify(openApi, null, 2)}\n`,
    headers: { 'content-type': 'application/json' },
  }),
};
