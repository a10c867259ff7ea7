/** The agent plane: enrolment, token, the poll, reports, signed documents. docs/specs/protocol.md, section 2. */
import { openEnvelope } from '#/bundle/dsse.ts';
import { verifyFast } from '#/bundle/ed25519.ts';
import { bytesOfHex, hexOf, publicKeyOf, sha256 } from '#/bundle/keys.ts';
import { parseStrictJson } from '#/bundle/strict-json.ts';
import { parseTilePath } from '#/bundle/log/tiles.ts';
import type { Host } from '#/control/core/model.ts';
import { enrol } from '#/control/engine/enrol.ts';
import { rotateHostKey } from '#/control/engine/hosts.ts';
import { signTime } from '#/control/engine/statements.ts';
import { receiveReport } from '#/control/engine/reports.ts';
import { KEY_CHANGE_PAYLOAD_TYPE, type KeyChange, keyChange } from '#/protocol/agent-plane.ts';
import { type Envelope, REPORT_PAYLOAD_TYPE, reportDocument } from '#/protocol/documents.ts';
import { isProblem, must, Problem } from '#/protocol/errors.ts';
import type { PresentedSignature } from '#/protocol/http-signature.ts';
import type { HostId } from '#/protocol/ids.ts';
import { sendArtifact } from './artifacts.ts';
import { checked } from './body.ts';
import { BEARER_TTL_SECONDS, presented, requireFresh, requireSignature } from './credentials.ts';
import type { Handlers, Services } from './handler.ts';
import { answerPoll, FORKED_RETRY_SECONDS, forked, pollAfter, sceneFor } from './poll.ts';

type AgentRoute =
  | 'enroll'
  | 'token'
  | 'rotate'
  | 'desired'
  | 'report'
  | 'trustMetadata'
  | 'trustTarget'
  | 'trustLog'
  | 'artifact';

const REPORT_MAX_BYTES = 1024 * 1024;
const KEY_CHANGE_MAX_BYTES = 4096;

function verifiedReport(host: Host, envelope: Envelope): { payload: Uint8Array; digest: string } {
  const key = publicKeyOf(bytesOfHex(host.signKey, 32) ?? new Uint8Array());
  const trust = { keys: [key], threshold: 1, payloadType: REPORT_PAYLOAD_TYPE, verify: verifyFast };
  const payload = openEnvelope(envelope, trust);
  return { payload, digest: sha256(payload) };
}

/** Who signed the request: exactly the host that it names, with its key of now (E02-E04). */
function speaker(
  services: Services,
  request: Request,
  bytes: Uint8Array,
  id: HostId,
): { readonly host: Host; readonly signature: PresentedSignature } {
  const { hosts } = services.desk.engine.fleet;
  const host = hosts.get(id);
  const signature = presented(request, bytes, services.publicUrl);
  if (signature.keyId !== host?.keyId) {
    const other = [...hosts.values()].find((each) => each.keyId === signature.keyId);
    // A key that nobody has is not told apart from a host that does not exist.
    if (other === undefined)
      throw new Problem('E_UNAUTHENTICATED', 'the key belongs to no host of this control', {
        retryAfterSeconds: FORKED_RETRY_SECONDS,
      });
    requireSignature(signature, bytesOfHex(other.signKey, 32) ?? new Uint8Array());
    throw new Problem('E_FORBIDDEN', `the key of ${other.id} cannot speak for ${id}`);
  }
  requireSignature(signature, bytesOfHex(host.signKey, 32) ?? new Uint8Array());
  return { host, signature };
}

/** The change of keys, signed by the old and by the new key (E15). @throws E_SIGS, E_SCHEMA, E_FORBIDDEN */
function verifiedChange(host: Host, envelope: Envelope): KeyChange {
  const payload = Buffer.from(envelope.payload, 'base64');
  const claimed = checked(
    'key change',
    keyChange,
    parseStrictJson(payload, { maxBytes: KEY_CHANGE_MAX_BYTES }),
  );
  const keys = [host.signKey, claimed.signKey].map((hex) =>
    publicKeyOf(bytesOfHex(hex, 32) ?? new Uint8Array()),
  );
  openEnvelope(envelope, {
    keys,
    threshold: 2,
    payloadType: KEY_CHANGE_PAYLOAD_TYPE,
    verify: verifyFast,
  });
  if (claimed.host !== host.id || claimed.oldKeyId !== host.keyId)
    throw new Problem('E_FORBIDDEN', `the change is of ${claimed.host}, asked for ${host.id}`);
  return claimed;
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
    const signature = presented(request, bytes, services.publicUrl);
    if (signature.keyId !== key.keyId)
      throw new Problem('E_UNAUTHENTICATED', 'the request is signed by another key than it enrols');
    requireSignature(signature, key.bytes);
    requireFresh(services, signature, body.challenge, nowMs, () => ({}));
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
    const { host, signature } = speaker(services, request, bytes, body.host);
    const time = (): { time?: Envelope } =>
      body.nonce === undefined
        ? {}
        : { time: signTime(services.desk.enrolment, host.id, body.nonce, nowMs) };
    requireFresh(services, signature, body.challenge, nowMs, time);
    services.hostLimit.use(host.id, nowMs);
    if (host.quarantine !== null) throw forked(host);
    return {
      ok: {
        token: services.bearers.issue(host.id, host.keyId, nowMs),
        expiresInSeconds: BEARER_TTL_SECONDS,
        serverTimeMs: nowMs,
        statement: JSON.parse(host.statement) as Envelope,
        ...time(),
      },
    };
  },

  async rotate({ services, request, body, bytes, nowMs }) {
    const { host, signature } = speaker(services, request, bytes, body.host);
    requireFresh(services, signature, undefined, nowMs, () => ({}));
    services.hostLimit.use(host.id, nowMs);
    if (host.quarantine !== null) throw forked(host);
    const next = await rotateHostKey(services.desk, verifiedChange(host, body.change));
    return { ok: { statement: JSON.parse(next.statement) as Envelope } };
  },

  desired: ({ services, request, host, nowMs }) => {
    must(host !== null, 'S3: the poll is authenticated');
    const header = (name: string): string => request.headers.get(name) ?? '';
    return answerPoll(services, host, header('agent-state'), header('if-none-match'), nowMs);
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

  /** Hashes and checkpoints are for anyone; the entries themselves are for operators (GET /api/v1/audit). */
  async trustLog({ services, params: { rest } }) {
    const isSigned = rest === 'checkpoint' || rest.startsWith('proof/');
    if (isSigned) {
      const text =
        rest === 'checkpoint'
          ? await services.signedLog.checkpoint()
          : await services.signedLog.proof(rest.slice('proof/'.length));
      if (text === null) throw new Problem('E_NOT_FOUND', `the log has no ${rest}`);
      const type = 'text/plain; charset=utf-8';
      return { ok: text as never, headers: { 'content-type': type, 'cache-control': 'no-cache' } };
    }
    const tile = parseTilePath(rest);
    const bytes =
      tile === null || tile.level < 0 ? null : await services.desk.engine.store.logTile(tile);
    if (bytes === null) throw new Problem('E_NOT_FOUND', `the log has no ${rest}`);
    const cache = 'public, max-age=31536000, immutable';
    return {
      ok: bytes,
      headers: { 'content-type': 'application/octet-stream', 'cache-control': cache },
    };
  },

  artifact: ({ services, request, params }) => sendArtifact(services.dataDir, params.file, request),
};

function wantsFacts(host: Host): boolean {
  return Object.keys(host.facts).length === 0;
}
