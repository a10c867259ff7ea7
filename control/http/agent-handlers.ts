/** The agent plane: enrolment, token, the poll, reports, signed documents. docs/specs/protocol.md, section 2. */
import { openEnvelope } from '#/bundle/dsse.ts';
import { verifyFast } from '#/bundle/ed25519.ts';
import { bytesOfHex, hexOf, publicKeyOf, sha256 } from '#/bundle/keys.ts';
import { parseStrictJson } from '#/bundle/strict-json.ts';
import { assignmentOf } from '#/control/core/assignment.ts';
import { isOnline, openAttempt, type Host, isActive, type Scene } from '#/control/core/model.ts';
import { pollAfterSeconds } from '#/control/core/poll.ts';
import { openStageOf } from '#/control/core/stage.ts';
import { enrol } from '#/control/engine/enrol.ts';
import { generationOf, offlineAfterMs } from '#/control/engine/fleet.ts';
import {
  isForkedBoot,
  quarantineHost,
  raiseEpoch,
  receiveReport,
} from '#/control/engine/reports.ts';
import { parseAgentState } from '#/protocol/agent-plane.ts';
import {
  type Assignment,
  type Envelope,
  REPORT_PAYLOAD_TYPE,
  reportDocument,
} from '#/protocol/documents.ts';
import { isProblem, must, Problem } from '#/protocol/errors.ts';
import { sendArtifact } from './artifacts.ts';
import { checked } from './body.ts';
import { BEARER_TTL_SECONDS, presented, requireSignature } from './credentials.ts';
import type { Handlers, Services } from './handler.ts';

type AgentRoute =
  | 'enroll'
  | 'token'
  | 'desired'
  | 'report'
  | 'trustMetadata'
  | 'trustTarget'
  | 'artifact';

const REPORT_MAX_BYTES = 1024 * 1024;
const FORKED_RETRY_SECONDS = 3600;

function sceneFor(services: Services, host: Host): Scene {
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

function pollAfter(services: Services, scene: Scene, host: Host): number {
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

function forked(host: Host): Problem {
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

async function checkBoot(services: Services, host: Host, boot: string): Promise<void> {
  const short = (id: string): string => id.replaceAll('-', '').slice(0, 16);
  const past = host.pastBoots.find((id) => short(id) === boot);
  if (past === undefined || (host.bootId !== null && short(host.bootId) === boot)) return;
  if (!isForkedBoot(host, past)) return;
  const words = `boot ${boot} polls after boot ${host.bootId ?? '-'} reported`;
  throw forked(await quarantineHost(services.desk, host.id, words));
}

function verifiedReport(host: Host, envelope: Envelope): { payload: Uint8Array; digest: string } {
  const key = publicKeyOf(bytesOfHex(host.signKey, 32) ?? new Uint8Array());
  const trust = { keys: [key], threshold: 1, payloadType: REPORT_PAYLOAD_TYPE, verify: verifyFast };
  const payload = openEnvelope(envelope, trust);
  return { payload, digest: sha256(payload) };
}

function fileAnswer(
  bytes: Uint8Array | undefined,
  name: string,
  isFixed: boolean,
): { ok: Uint8Array; headers: Record<string, string> } {
  if (bytes === undefined) throw new Problem('E_NOT_FOUND', `there is no ${name}`);
  const cache = isFixed ? 'public, max-age=31536000, immutable' : 'no-cache';
  return { ok: bytes, headers: { 'content-type': 'application/json', 'cache-control': cache } };
}

export const agentHandlers: Handlers<AgentRoute> = {
  async enroll({ services, request, body, bytes, nowMs, remote }) {
    if (services.enrolLimit.isSpent(remote, nowMs))
      throw new Problem('E_RATE_LIMITED', 'too many refused join tokens', {
        retryAfterSeconds: 60,
      });
    const key = publicKeyOf(bytesOfHex(body.signKey, 32) ?? new Uint8Array());
    const signature = presented(request, bytes, services.publicUrl, nowMs);
    if (signature.keyId !== key.keyId)
      throw new Problem('E_UNAUTHENTICATED', 'the request is signed by another key than it enrols');
    requireSignature(signature, key.bytes);
    services.nonces.use(signature.keyId, signature.nonce, nowMs);
    let host: Host;
    try {
      host = await enrol(services.desk, body);
    } catch (error) {
      if (isProblem(error, 'E_TOKEN')) services.enrolLimit.use(remote, nowMs);
      throw error;
    }
    const root = services.desk.engine.fleet.trust.get('metadata/root.json');
    const first = services.desk.engine.fleet.trust.get('metadata/1.root.json');
    must(root !== undefined && first !== undefined, 'S2: control has a trust repository');
    return {
      ok: {
        host: host.id,
        group: host.group,
        class: host.class,
        statement: JSON.parse(host.statement) as Envelope,
        enrolmentKey: hexOf(services.desk.enrolment.key.bytes),
        root: Buffer.from(first).toString('utf8'),
        rootSha256: sha256(first),
        serverTimeMs: nowMs,
        pollAfterSeconds: 1,
      },
    };
  },

  token({ services, request, body, bytes, nowMs }) {
    const host = services.desk.engine.fleet.hosts.get(body.host);
    const signature = presented(request, bytes, services.publicUrl, nowMs);
    // A key that nobody has is not told apart from a host that does not exist.
    if (host === undefined) {
      const isKnown = [...services.desk.engine.fleet.hosts.values()].some(
        (h) => h.keyId === signature.keyId,
      );
      throw new Problem(
        isKnown ? 'E_FORBIDDEN' : 'E_UNAUTHENTICATED',
        'the key belongs to no host of this control',
        {
          retryAfterSeconds: FORKED_RETRY_SECONDS,
        },
      );
    }
    if (signature.keyId !== host.keyId) {
      const other = [...services.desk.engine.fleet.hosts.values()].find(
        (h) => h.keyId === signature.keyId,
      );
      if (other === undefined) throw new Problem('E_UNAUTHENTICATED', 'the key is unknown');
      requireSignature(signature, bytesOfHex(other.signKey, 32) ?? new Uint8Array());
      throw new Problem('E_FORBIDDEN', `the key of ${other.id} cannot speak for ${host.id}`);
    }
    requireSignature(signature, bytesOfHex(host.signKey, 32) ?? new Uint8Array());
    services.nonces.use(signature.keyId, signature.nonce, nowMs);
    services.hostLimit.use(host.id, nowMs);
    if (host.quarantine !== null) throw forked(host);
    return {
      ok: {
        token: services.bearers.issue(host.id, host.keyId, nowMs),
        expiresInSeconds: BEARER_TTL_SECONDS,
        serverTimeMs: nowMs,
        statement: JSON.parse(host.statement) as Envelope,
      },
    };
  },

  async desired({ services, request, host: given, nowMs }) {
    must(given !== null, 'S3: the poll is authenticated');
    services.gauge.polled();
    if (given.quarantine !== null) throw forked(given);
    const { fleet } = services.desk.engine;
    const state = parseAgentState(request.headers.get('agent-state') ?? '');
    if (state !== null) await checkBoot(services, given, state.boot);
    const ifNoneMatch = request.headers.get('if-none-match') ?? '';
    const told = ifNoneMatch === '' ? null : readEtag(services, given, ifNoneMatch);
    const group = fleet.groups.get(given.group);
    must(group !== undefined, 'S1: every host is in a group that exists');
    if (told !== null) {
      const current = generationOf(fleet, group, given);
      const isFuture =
        told.epoch > fleet.epoch || (told.epoch === fleet.epoch && told.generation > current);
      if (isFuture) await raiseEpoch(services.desk, { epoch: told.epoch, host: given.id });
    }
    const host = seen(services, fleet.hosts.get(given.id) ?? given, nowMs);
    const scene = sceneFor(services, host);
    const generation = generationOf(fleet, scene.group, host);
    const etag = etagOf(services, host, fleet.epoch, generation);
    const headers = { etag, 'poll-after': String(pollAfter(services, scene, host)) };
    if (etag === ifNoneMatch) return { status: 304, headers, ok: undefined as never };
    const assignment: Assignment = { generation, ...assignmentOf(scene, host) };
    return { ok: assignment, headers };
  },

  async report({ services, host: given, body }) {
    must(given !== null, 'S3: the report is authenticated');
    if (given.quarantine !== null) throw forked(given);
    const { payload, digest } = verifiedReport(given, body);
    const json = parseStrictJson(payload, { maxBytes: REPORT_MAX_BYTES });
    const report = checked('report', reportDocument, json);
    if (report.host !== given.id)
      throw new Problem('E_FORBIDDEN', `the report of ${report.host} came from ${given.id}`);
    const { host } = await receiveReport(services.desk, {
      report,
      digest,
      envelope: JSON.stringify(body),
    });
    const scene = sceneFor(services, host);
    return {
      ok: {
        ackSeq: Math.max(report.seq, host.seq),
        wantFacts: wantsFacts(host),
        pollAfterSeconds: pollAfter(services, scene, host),
      },
    };
  },

  trustMetadata({ services, params }) {
    const isFixed = /^\d+\./.test(params.file);
    const { trust } = services.desk.engine.fleet;
    return fileAnswer(trust.get(`metadata/${params.file}`), params.file, isFixed);
  },

  trustTarget({ services, params }) {
    return fileAnswer(
      services.desk.engine.fleet.trust.get(`targets/${params.rest}`),
      params.rest,
      true,
    );
  },

  artifact: ({ services, request, params }) => sendArtifact(services.dataDir, params.file, request),
};

function wantsFacts(host: Host): boolean {
  return Object.keys(host.facts).length === 0;
}
