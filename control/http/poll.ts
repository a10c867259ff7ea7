/**
 * The poll: answered from memory, and, for the many that have nothing new, without the web objects that every other route is
 * served with. They cost twice as much as all the rest of a poll (docs/decisions/0051).
 */
import type { IncomingMessage, ServerResponse } from 'node:http';
import { assignmentOf } from '#/control/core/assignment.ts';
import { type Host, isActive, isOnline, openAttempt, type Scene } from '#/control/core/model.ts';
import { pollAfterSeconds } from '#/control/core/poll.ts';
import { openStageOf } from '#/control/core/stage.ts';
import { generationOf, offlineAfterMs } from '#/control/engine/fleet.ts';
import { isForkedBoot, quarantineHost, raiseEpoch } from '#/control/engine/reports.ts';
import { parseAgentState, REPORT_WANTED_HEADER } from '#/protocol/agent-plane.ts';
import { routes } from '#/protocol/api.ts';
import type { Assignment } from '#/protocol/documents.ts';
import { must, Problem } from '#/protocol/errors.ts';
import type { Services } from './handler.ts';
import { STRAY_RETRY_SECONDS } from './strays.ts';

export const FORKED_RETRY_SECONDS = 3600;

export interface PollAnswer {
  readonly status?: number;
  readonly ok: Assignment;
  readonly headers: Readonly<Record<string, string>>;
}

export function sceneFor(services: Services, host: Host): Scene {
  const { engine } = services.desk;
  const group = engine.fleet.groups.get(host.group);
  must(group !== undefined, 'S1: every host is in a group that exists');
  return engine.scene(group);
}

/** In an attempt, or in a stage that waits for it: worth hearing of soon. */
function isFast(scene: Scene, host: Host): boolean {
  if (openAttempt(host) !== null) return true;
  const { rollout } = scene;
  if (!isActive(rollout) || host.running === rollout.artifactId) return false;
  return openStageOf(scene, rollout, host) !== null;
}

export function pollAfter(services: Services, scene: Scene, host: Host): number {
  return pollAfterSeconds({
    hosts: services.desk.engine.fleet.hosts.size,
    policy: scene.group.poll,
    isActive: isFast(scene, host),
    shedLevel: services.gauge.level,
    unit: services.unit(),
  });
}

/** `"e<epoch>.g<generation>.<seal>"`; the seal keeps a host from making up one from the future. */
function etagOf(services: Services, host: Host, epoch: number, generation: number): string {
  const text = `e${epoch}.g${generation}`;
  return `"${text}.${services.bearers.seal(`${host.id}/${text}`)}"`;
}

/** Epoch and generation of an ETag that this control, or the one it was restored from, gave to this host. */
function readEtag(
  services: Services,
  host: Host,
  etag: string,
): { epoch: number; generation: number } | null {
  const match = /^"e(\d{1,15})\.g(\d{1,15})\.[0-9a-f]{12}"$/.exec(etag);
  if (match === null) return null;
  const [epoch, generation] = [Number(match[1]), Number(match[2])];
  return etagOf(services, host, epoch, generation) === etag ? { epoch, generation } : null;
}

export function forked(host: Host): Problem {
  return new Problem(
    'E_FORKED',
    `host ${host.id} is quarantined: ${host.quarantine?.reason ?? ''}`,
    {
      retryAfterSeconds: FORKED_RETRY_SECONDS,
    },
  );
}

/** A host that was offline, or never seen, may now be offered something. */
function seen(services: Services, host: Host, nowMs: number): Host {
  const { engine } = services.desk;
  const group = engine.fleet.groups.get(host.group);
  const next = { ...host, lastSeenAtMs: nowMs };
  engine.fleet.hosts.set(host.id, next);
  if (group !== undefined && !isOnline(host, nowMs, offlineAfterMs(engine.fleet, group)))
    engine.touch(host.group);
  return next;
}

/** A superseded boot that speaks again: its short id, or null. */
function pastBootOf(host: Host, agentState: string): string | null {
  const state = parseAgentState(agentState);
  if (state === null) return null;
  const short = (id: string): string => id.replaceAll('-', '').slice(0, 16);
  if (host.bootId !== null && short(host.bootId) === state.boot) return null;
  const past = host.pastBoots.find((id) => short(id) === state.boot);
  return past === undefined || !isForkedBoot(host, past) ? null : state.boot;
}

function currentAnswer(
  services: Services,
  given: Host,
  ifNoneMatch: string,
  nowMs: number,
): PollAnswer {
  const { fleet } = services.desk.engine;
  const host = seen(services, fleet.hosts.get(given.id) ?? given, nowMs);
  const scene = sceneFor(services, host);
  const generation = generationOf(fleet, scene.group, host);
  const etag = etagOf(services, host, fleet.epoch, generation);
  const headers = {
    etag,
    'poll-after': String(pollAfter(services, scene, host)),
    // F73: nothing is offered to a host that was not heard since, and a host with no news would never report.
    ...(fleet.isRestored && host.observedEpoch < fleet.epoch
      ? { [REPORT_WANTED_HEADER]: 'full' }
      : {}),
  };
  // A 304 has no body; nobody reads `ok` of it.
  if (etag === ifNoneMatch) return { status: 304, headers, ok: undefined as never };
  return { ok: { generation, ...assignmentOf(scene, host) }, headers };
}

/** True for an ETag of ours from the future: the store is older than what this host was told (F73). */
function isFromFuture(
  services: Services,
  host: Host,
  ifNoneMatch: string,
): { epoch: number } | null {
  const told = ifNoneMatch === '' ? null : readEtag(services, host, ifNoneMatch);
  if (told === null) return null;
  const { fleet } = services.desk.engine;
  const group = fleet.groups.get(host.group);
  must(group !== undefined, 'S1: every host is in a group that exists');
  const isNewer = told.epoch === fleet.epoch && told.generation > generationOf(fleet, group, host);
  return told.epoch > fleet.epoch || isNewer ? { epoch: told.epoch } : null;
}

/** One poll may be a copy that was long under way while its host rebooted; whoever goes on polling is a second machine. */
async function refuseStray(
  services: Services,
  host: Host,
  boot: string,
  nowMs: number,
): Promise<never> {
  if (!services.strays.isPersistent(host.id, boot, nowMs))
    throw new Problem('E_UNAVAILABLE', `boot ${boot} of ${host.id} has ended`, {
      retryAfterSeconds: STRAY_RETRY_SECONDS,
    });
  const words = `boot ${boot} goes on polling after boot ${host.bootId ?? '-'} reported`;
  throw forked(await quarantineHost(services.desk, host.id, words));
}

/** The answer to an authenticated poll: at once, unless something about the host must be written first. */
export function answerPoll(
  services: Services,
  host: Host,
  agentState: string,
  ifNoneMatch: string,
  nowMs: number,
): PollAnswer | Promise<PollAnswer> {
  services.gauge.polled();
  if (host.quarantine !== null) throw forked(host);
  const past = pastBootOf(host, agentState);
  if (past !== null) return refuseStray(services, host, past, nowMs);
  const answer = currentAnswer(services, host, ifNoneMatch, nowMs);
  if (answer.status === 304) return answer;
  const future = isFromFuture(services, host, ifNoneMatch);
  if (future === null) return answer;
  return raiseEpoch(services.desk, { epoch: future.epoch, host: host.id }).then(() =>
    currentAnswer(services, host, ifNoneMatch, nowMs),
  );
}

/**
 * Answers a quiet poll straight on the socket: true when it did. Whatever is not a plain 304 is left to the routes, which
 * find the same again; nothing was changed but the time at which the host was seen.
 */
export function tryQuietPoll(
  services: Services,
  request: IncomingMessage,
  response: ServerResponse,
): boolean {
  const {
    authorization,
    'if-none-match': ifNoneMatch,
    'agent-state': agentState,
  } = request.headers;
  if (request.method !== 'GET' || request.url !== routes.desired.path) return false;
  if (authorization === undefined || !authorization.startsWith('Bearer ')) return false;
  if (ifNoneMatch === undefined || typeof agentState === 'object' || services.gauge.level >= 3)
    return false;
  const nowMs = services.desk.engine.nowMs();
  try {
    const { host: id, keyId } = services.bearers.check(
      authorization.slice('Bearer '.length),
      nowMs,
    );
    const host = services.desk.engine.fleet.hosts.get(id);
    if (host === undefined || host.quarantine !== null || !host.keyId.startsWith(keyId))
      return false;
    if (services.hostLimit.isSpent(id, nowMs) || pastBootOf(host, agentState ?? '') !== null)
      return false;
    const answer = currentAnswer(services, host, ifNoneMatch, nowMs);
    if (answer.status !== 304) return false;
    services.hostLimit.use(id, nowMs);
    services.gauge.polled();
    services.gauge.count('route="desired",status="304"');
    response.writeHead(304, { ...answer.headers }).end();
    return true;
  } catch (error) {
    if (error instanceof Problem) return false;
    throw error;
  }
}
