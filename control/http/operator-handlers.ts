/** The operator plane: hosts, groups, pins, rollouts. */
import { openAttempt, type Group, type Host, type Rollout } from '#/control/core/model.ts';
import { versionOf } from '#/control/core/desired.ts';
import { pollIntervalSeconds } from '#/control/core/poll.ts';
import { createJoinToken } from '#/control/engine/enrol.ts';
import type { Engine } from '#/control/engine/engine.ts';
import { deleteGroup, halt, liftHalt, putGroup } from '#/control/engine/groups.ts';
import { actOnHost, holdHost, labelHost, unholdHost } from '#/control/engine/hosts.ts';
import { pinGroup, pinHost, unpinGroup, unpinHost } from '#/control/engine/pins.ts';
import {
  abortRollout,
  pauseRollout,
  promoteRollout,
  resumeRollout,
} from '#/control/engine/rollouts.ts';
import {
  groupView,
  hostDetail,
  hostView,
  hostWhy,
  pinView,
  rolloutView,
} from '#/control/engine/views.ts';
import { sha256 } from '#/bundle/keys.ts';
import type { JoinToken } from '#/control/store/port.ts';
import { must, Problem } from '#/protocol/errors.ts';
import type { HostDetail, TimelineEntry } from '#/protocol/host.ts';
import type { GroupName, HostId, RolloutId } from '#/protocol/ids.ts';
import type { JoinTokenView } from '#/protocol/operator-plane.ts';
import type { RolloutView } from '#/protocol/rollout.ts';
import { parseSelector, selects } from '#/protocol/selector.ts';
import { askGates } from '#/control/engine/gates.ts';
import type { Handlers, Services } from './handler.ts';

type HostRoute =
  | 'hostList'
  | 'hostShow'
  | 'hostWhy'
  | 'hostTimeline'
  | 'hostHold'
  | 'hostUnhold'
  | 'hostPin'
  | 'hostUnpin'
  | 'hostAction'
  | 'hostLabels'
  | 'joinTokenCreate'
  | 'joinTokenList'
  | 'joinTokenRevoke';
type GroupRoute =
  | 'groupList'
  | 'groupShow'
  | 'groupPut'
  | 'groupDelete'
  | 'groupPin'
  | 'groupVerdict'
  | 'groupUnpin'
  | 'halt'
  | 'halts'
  | 'lift'
  | 'rolloutList'
  | 'rolloutShow'
  | 'rolloutDecisions'
  | 'rolloutPause'
  | 'rolloutResume'
  | 'rolloutAbort'
  | 'rolloutPromote';

const ATTEMPTS_SHOWN = 20;
const DECISIONS_SHOWN = 200;
const gone = { ok: undefined, status: 204 } as const;

function hostNamed(services: Services, id: HostId): { host: Host; group: Group; engine: Engine } {
  const { engine } = services.desk;
  const host = engine.fleet.hosts.get(id);
  if (host === undefined) throw new Problem('E_NOT_FOUND', `there is no host ${id}`);
  const group = engine.fleet.groups.get(host.group);
  must(group !== undefined, 'S1: every host is in a group that exists');
  return { host, group, engine };
}

function groupNamed(services: Services, name: GroupName): Group {
  const group = services.desk.engine.fleet.groups.get(name);
  if (group === undefined) throw new Problem('E_NOT_FOUND', `there is no group ${name}`);
  return group;
}

async function detailOf(services: Services, id: HostId): Promise<HostDetail> {
  const { host, group, engine } = hostNamed(services, id);
  const attempts = await engine.store.attempts(id, ATTEMPTS_SHOWN);
  return hostDetail(engine.fleet, engine.scene(group), host, attempts);
}

/** A rollout as it stands: from memory, or from the store when it is an older one of its group. */
async function viewRollout(services: Services, rollout: Rollout): Promise<RolloutView> {
  const { engine } = services.desk;
  const group = engine.fleet.groups.get(rollout.group);
  must(group !== undefined, 'S4: a rollout belongs to a group that exists');
  const scene = engine.scene(group);
  if (scene.rollout?.id === rollout.id) return rolloutView(engine.fleet, scene, scene.rollout);
  const attempts = await engine.store.attemptsOf(rollout.id);
  const hosts = scene.hosts.map((host) => ({
    ...host,
    attempts: attempts.filter((attempt) => attempt.host === host.id),
  }));
  return rolloutView(engine.fleet, { ...scene, rollout, hosts }, rollout);
}

async function rolloutNamed(services: Services, id: RolloutId): Promise<Rollout> {
  const rollout = await services.desk.engine.store.rollout(id);
  if (rollout === null) throw new Problem('E_NOT_FOUND', `there is no rollout ${id}`);
  return rollout;
}

function joinTokenView(token: JoinToken): JoinTokenView {
  const { id, group, labels, description, createdAtMs, expiresAtMs, usedAtMs, usedBy, actor } =
    token;
  return { id, group, labels, description, createdAtMs, expiresAtMs, usedAtMs, usedBy, actor };
}

async function timeline(
  services: Services,
  id: HostId,
  cursor: string | undefined,
  limit: number,
): Promise<{ items: TimelineEntry[]; nextCursor: string | null }> {
  const { engine } = hostNamed(services, id);
  const at = /^(\d{1,15})\.(\d{1,6})$/.exec(cursor ?? '');
  const before = at === null ? null : { seq: Number(at[1]), ordinal: Number(at[2]) };
  const events = await engine.store.events(id, before, limit);
  const last = events.at(-1);
  return {
    items: events.map((event) => ({
      id: event.id,
      atMs: event.receivedAtMs,
      hostAtMs: event.at,
      kind: event.phase,
      attempt: event.attempt,
      artifactId: event.artifactId,
      version: event.artifactId === null ? null : versionOf(engine.fleet, event.artifactId),
      code: event.code,
      words: event.message,
      evidence: event.evidence,
    })),
    nextCursor:
      events.length === limit && last !== undefined ? `${last.seq}.${last.ordinal}` : null,
  };
}

export const hostHandlers: Handlers<HostRoute> = {
  hostList({ services, query }) {
    const { engine } = services.desk;
    const selector = parseSelector(query.selector ?? '');
    const ids =
      query.group === undefined
        ? [...engine.fleet.hosts.keys()]
        : [...(engine.fleet.hostsOf.get(groupNamed(services, query.group).name) ?? [])];
    ids.sort();
    const scenes = new Map([...engine.fleet.groups.values()].map((g) => [g.name, engine.scene(g)]));
    const items = [];
    for (const id of ids) {
      if (query.cursor !== undefined && id <= query.cursor) continue;
      const host = engine.fleet.hosts.get(id);
      const scene = host === undefined ? undefined : scenes.get(host.group);
      if (host === undefined || scene === undefined || !selects(selector, host.labels)) continue;
      if (query.running !== undefined && host.running !== query.running) continue;
      const view = hostView(engine.fleet, scene, host);
      if (query.condition !== undefined && view.condition !== query.condition) continue;
      // One more than asked for tells whether there is a next page.
      if (items.length === query.limit)
        return { ok: { items, nextCursor: items.at(-1)?.id ?? null } };
      items.push(view);
    }
    return { ok: { items, nextCursor: null } };
  },
  hostShow: async ({ services, params }) => ({ ok: await detailOf(services, params.host) }),
  hostWhy({ services, params }) {
    const { host, group, engine } = hostNamed(services, params.host);
    const interval = pollIntervalSeconds(engine.fleet.hosts.size, group.poll);
    const seconds =
      openAttempt(host) === null ? interval : Math.min(interval, group.poll.activeSeconds);
    return { ok: hostWhy(engine.scene(group), host, seconds) };
  },
  hostTimeline: async ({ services, params, query }) => ({
    ok: await timeline(services, params.host, query.cursor, query.limit),
  }),
  async hostHold({ services, params, body, actor }) {
    await holdHost(services.desk, params.host, body.reason, actor);
    return { ok: await detailOf(services, params.host) };
  },
  async hostUnhold({ services, params, actor }) {
    await unholdHost(services.desk, params.host, actor);
    return { ok: await detailOf(services, params.host) };
  },
  async hostPin({ services, params, body, actor, nowMs }) {
    const pin = await pinHost(services.desk, params.host, body, actor);
    return { ok: pinView(services.desk.engine.fleet, pin, nowMs) };
  },
  async hostUnpin({ services, params, actor }) {
    await unpinHost(services.desk, params.host, actor);
    return gone;
  },
  hostAction: async ({ services, params, body, actor }) => ({
    ok: await actOnHost(services.desk, params.host, body, actor),
  }),
  async hostLabels({ services, params, body, actor }) {
    await labelHost(services.desk, params.host, body.labels, actor);
    return { ok: await detailOf(services, params.host) };
  },
  async joinTokenCreate({ services, body, actor }) {
    const order = {
      group: body.group ?? null,
      labels: body.labels,
      description: body.description,
      ttlSeconds: body.ttlSeconds,
      replacesHost: null,
    };
    const { token, stored } = await createJoinToken(services.desk, order, actor);
    const root = services.desk.engine.fleet.trust.get('metadata/1.root.json');
    must(root !== undefined, 'S2: control has a trust repository');
    return { ok: { ...joinTokenView(stored), token, rootSha256: sha256(root) } };
  },
  async joinTokenList({ services }) {
    const tokens = await services.desk.engine.store.joinTokens();
    return { ok: { items: tokens.map(joinTokenView), nextCursor: null } };
  },
  async joinTokenRevoke({ services, params, actor }) {
    await services.desk.engine.change(async (draft) => {
      if (!(await draft.writer.deleteJoinToken(params.id)))
        throw new Problem('E_NOT_FOUND', `there is no unused join token ${params.id}`);
      await draft.audit(actor, 'join-token.revoke', `join-token/${params.id}`, {});
    });
    return gone;
  },
};

function revisionOf(request: Request, body: number | undefined): number | null {
  const header = /^"?(\d{1,15})"?$/.exec(request.headers.get('if-match') ?? '');
  return header === null ? (body ?? null) : Number(header[1]);
}

const rolloutAnswer = async (
  services: Services,
  rollout: Rollout,
): Promise<{ ok: RolloutView }> => {
  await services.desk.engine.settled();
  return { ok: await viewRollout(services, await rolloutNamed(services, rollout.id)) };
};

export const groupHandlers: Handlers<GroupRoute> = {
  groupList({ services }) {
    const { engine } = services.desk;
    const groups = [...engine.fleet.groups.values()].sort((a, b) => (a.name < b.name ? -1 : 1));
    return { ok: { items: groups.map((group) => groupView(engine, group)), nextCursor: null } };
  },
  groupShow({ services, params }) {
    const group = groupNamed(services, params.group);
    return { ok: groupView(services.desk.engine, group), headers: { etag: `"${group.revision}"` } };
  },
  async groupPut({ services, params, body, request, actor }) {
    const revision = revisionOf(request, body.revision);
    const group = await putGroup(services.desk, params.group, body, revision, actor);
    return { ok: groupView(services.desk.engine, group), headers: { etag: `"${group.revision}"` } };
  },
  async groupDelete({ services, params, actor }) {
    await deleteGroup(services.desk, params.group, actor);
    return gone;
  },
  async groupVerdict({ services, params, body, actor }) {
    return { ok: { verdicts: [...(await askGates(services.desk, params.group, body, actor))] } };
  },
  async groupPin({ services, params, body, actor, nowMs }) {
    const { pin, rollout } = await pinGroup(services.desk, params.group, body, actor);
    await services.desk.engine.settled();
    const view = await viewRollout(services, rollout);
    return { ok: { pin: pinView(services.desk.engine.fleet, pin, nowMs), rollout: view } };
  },
  async groupUnpin({ services, params, actor }) {
    await unpinGroup(services.desk, params.group, actor);
    return gone;
  },
  halt: async ({ services, body, actor }) => ({
    ok: await halt(services.desk, body.group ?? null, body.reason, actor),
  }),
  halts: ({ services }) => ({
    ok: { items: [...services.desk.engine.fleet.halts.values()], nextCursor: null },
  }),
  async lift({ services, body, actor }) {
    await liftHalt(services.desk, body.group ?? null, body.reason, actor);
    return gone;
  },
  async rolloutList({ services, query }) {
    const filter = {
      ...(query.group === undefined ? {} : { group: query.group }),
      ...(query.state === undefined ? {} : { state: query.state }),
    };
    const page = await services.desk.engine.store.rollouts(
      filter,
      query.cursor ?? null,
      query.limit,
    );
    const items = await Promise.all(page.items.map((rollout) => viewRollout(services, rollout)));
    return { ok: { items, nextCursor: page.nextCursor } };
  },
  async rolloutShow({ services, params }) {
    const rollout = await rolloutNamed(services, params.rollout);
    const decisions = await services.desk.engine.store.lastDecisions(rollout.id, DECISIONS_SHOWN);
    return { ok: { ...(await viewRollout(services, rollout)), decisions: [...decisions] } };
  },
  async rolloutDecisions({ services, params, query }) {
    const rollout = await rolloutNamed(services, params.rollout);
    const after = Number(query.cursor ?? 0);
    const items = await services.desk.engine.store.decisions(
      rollout.id,
      Number.isFinite(after) ? after : 0,
      query.limit,
    );
    const last = items.at(-1);
    const isMore = items.length === query.limit && last !== undefined;
    return { ok: { items: [...items], nextCursor: isMore ? String(last.id) : null } };
  },
  rolloutPause: async ({ services, params, body, actor }) =>
    rolloutAnswer(services, await pauseRollout(services.desk, params.rollout, body.reason, actor)),
  rolloutResume: async ({ services, params, body, actor }) =>
    rolloutAnswer(services, await resumeRollout(services.desk, params.rollout, body.reason, actor)),
  rolloutAbort: async ({ services, params, body, actor }) =>
    rolloutAnswer(services, await abortRollout(services.desk, params.rollout, body, actor)),
  rolloutPromote: async ({ services, params, body, actor }) =>
    rolloutAnswer(
      services,
      await promoteRollout(services.desk, params.rollout, body.reason, actor),
    ),
};
