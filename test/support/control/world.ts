/** A real control on loopback over a real SQLite file, an operator, and hosts that speak the protocol with real keys. */
import { createHash, randomBytes } from 'node:crypto';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { canonicalDocument } from '#/bundle/canonical.ts';
import { MANIFEST_PAYLOAD_TYPE, signEnvelope } from '#/bundle/dsse.ts';
import { hexOf, sha256, type Signer, signerOf } from '#/bundle/keys.ts';
import { sealPublicKeyOf } from '#/bundle/seal.ts';
import { checkBundle, checkPatch } from '#/control/bundle-check.ts';
import { openDataDir } from '#/control/data-dir.ts';
import { type Control, type ControlOptions, initControl, startControl } from '#/control/start.ts';
import { formatAgentState } from '#/protocol/agent-plane.ts';
import { type Client, createClient, type Send } from '#/protocol/client.ts';
import {
  type Assignment,
  type AttemptPhase,
  type Envelope,
  REPORT_PAYLOAD_TYPE,
  type ReportDocument,
  type ReportEvent,
} from '#/protocol/documents.ts';
import { signRequest } from '#/protocol/http-signature.ts';
import {
  type ArtifactId,
  type GroupName,
  type HostId,
  type RolloutId,
  type VersionId,
  versionIdOf,
} from '#/protocol/ids.ts';

async function* chunksOf(body: ReadableStream<Uint8Array> | null): AsyncGenerator<Uint8Array> {
  if (body === null) return;
  for await (const part of body) yield part;
}

/** Sends with fetch. */
export function fetchSend(base: string): Send {
  return async ({ method, path, headers, body }) => {
    const init: RequestInit & { duplex?: string } = { method, headers: { ...headers } };
    if (body !== null) {
      init.body = (body instanceof Uint8Array ? body : ReadableStream.from(body)) as never;
      init.duplex = 'half';
    }
    const answer = await fetch(base + path, init);
    return {
      status: answer.status,
      headers: Object.fromEntries(answer.headers),
      body: chunksOf(answer.body),
    };
  };
}

export interface World extends AsyncDisposable {
  readonly dir: string;
  readonly adminToken: string;
  control: Control;
  readonly admin: Client;
  /** Stops control and starts it again on the same directory. */
  restart(options?: Partial<ControlOptions>): Promise<void>;
  operator(token: string): Client;
  /** Admits a release of a made-up manifest; `release` is its number. */
  release(
    release: number,
    more?: { class?: string; config?: { schema: string; version: number } },
  ): Promise<ArtifactId>;
  group(name: string, rollout?: Record<string, unknown>): Promise<GroupName>;
  host(group: string, options?: { class?: string }): Promise<TestHost>;
}

/** Manifest bytes of a release without payload bytes: control never opens them when they come by reference. */
export function manifestOf(
  release: number,
  of = 'web',
  config?: { schema: string; version: number },
): Uint8Array {
  return canonicalDocument({
    schema: 'switchback.manifest/1',
    name: 'app',
    class: of,
    arch: 'any',
    version: `1.${release}.0`,
    release,
    created: 1_700_000_000,
    minAgent: 0,
    minFrom: 0,
    index: { sha256: sha256(Buffer.from(`index ${release}`)), sizeBytes: 100 },
    dataBytes: 1000,
    payloads: [
      {
        name: 'root',
        chunker: 'acdc-32k',
        sizeBytes: 1000,
        chunkCount: 1,
        kind: 'image',
        sha256: sha256(Buffer.from(`image ${release}`)),
      },
    ],
    activation: { kind: 'none' },
    health: [],
    trial: { soakMs: 0, deadlineMs: 1000, maxBoots: 1, control: 'offline-ok' },
    ...(config === undefined ? {} : { config }),
  });
}

/** A rollout policy without waiting. */
export const QUICK = { soakSeconds: 0, wavePercents: [100], canaryCount: 1 };

export async function startWorld(options: Partial<ControlOptions> = {}): Promise<World> {
  const dir = mkdtempSync(join(tmpdir(), 'sb-control-'));
  const dataDir = join(dir, 'data');
  const adminToken = (await initControl(dataDir)) ?? '';
  const start = (more: Partial<ControlOptions> = {}): Promise<Control> =>
    startControl({
      dataDir,
      port: 0,
      tickMs: 50,
      verifyBundle: checkBundle,
      verifyPatch: checkPatch,
      ...options,
      ...more,
    });
  const { trustKeys } = await openDataDir(dataDir);
  const releaseKey = trustKeys.find((key) => key.use === 'release');
  const world: World = {
    dir: dataDir,
    adminToken,
    control: await start(),
    get admin() {
      return world.operator(adminToken);
    },
    operator: (token) =>
      createClient(fetchSend(world.control.url), { authorization: `Bearer ${token}` }),
    restart: async (more) => {
      await world.control.stop();
      world.control = await start(more);
    },
    release: async (release, more = {}) => {
      const bytes = manifestOf(release, more.class, more.config);
      const envelope = signEnvelope(MANIFEST_PAYLOAD_TYPE, bytes, [releaseKey?.signer as Signer]);
      const manifest = Buffer.from(bytes).toString('base64');
      const sources = [`https://mirror.invalid/${release}.bundle`];
      const view = await world.admin.call('releaseReference', {
        body: { manifest, envelope, sources },
      });
      return view.artifactId;
    },
    group: async (name, rollout = QUICK) => {
      const poll = { minSeconds: 1, activeSeconds: 1 };
      const body = { rollout, poll };
      return (await world.admin.call('groupPut', { params: { group: name }, body })).name;
    },
    host: (group, more = {}) => TestHost.enrol(world, group, more.class ?? 'web'),
    [Symbol.asyncDispose]: async () => {
      await world.control.stop();
      rmSync(dir, { recursive: true, force: true });
    },
  };
  return world;
}

export const hex = (bytes: number): string => randomBytes(bytes).toString('hex');

/** The headers of a signed request. */
export function signedHeaders(
  url: string,
  method: string,
  body: Uint8Array,
  signer: Signer,
  moment: { nowS?: number; nonce?: string } = {},
): Record<string, string> {
  const message = { method, url, headers: { 'content-type': 'application/json' } };
  const digest = createHash('sha256').update(body).digest();
  const key = { keyId: signer.key.keyId, sign: signer.sign };
  const at = { nowS: moment.nowS ?? Math.floor(Date.now() / 1000), nonce: moment.nonce ?? hex(16) };
  return { 'content-type': 'application/json', ...signRequest(message, digest, key, at) };
}

export interface Polled {
  readonly status: number;
  readonly etag: string;
  readonly pollAfter: number;
  readonly retryAfter: string | null;
  readonly body: Assignment & { code?: string };
}

/** A host with real keys that says what a test tells it to say. */
export class TestHost {
  readonly world: World;
  readonly signer: Signer;
  readonly id: HostId;
  group = '';
  bootId: string = hex(16);
  seq = 0;
  running: VersionId | null = null;
  previous: VersionId | null = null;
  etag: string | null = null;
  token = '';
  statement: Envelope | null = null;

  constructor(world: World, signer: Signer, id: HostId) {
    this.world = world;
    this.signer = signer;
    this.id = id;
  }

  static async enrol(world: World, group: string, of: string): Promise<TestHost> {
    const { token } = await world.admin.call('joinTokenCreate', {
      body: { group: group as GroupName },
    });
    const signer = signerOf(randomBytes(32));
    const answer = await enrolWith(world, signer, { token, class: of });
    if (answer.status !== 201)
      throw new Error(`enrolment answered ${answer.status} ${answer.text}`);
    const body = JSON.parse(answer.text) as { host: HostId; group: string; statement: Envelope };
    const host = new TestHost(world, signer, body.host);
    host.group = body.group;
    host.statement = body.statement;
    await host.authenticate();
    return host;
  }

  async authenticate(): Promise<Response> {
    const url = `${this.world.control.url}/agent/v1/token`;
    const body = Buffer.from(JSON.stringify({ host: this.id, bootId: this.bootId }));
    const headers = signedHeaders(url, 'POST', body, this.signer);
    const answer = await fetch(url, { method: 'POST', body, headers });
    if (answer.status === 200)
      this.token = ((await answer.clone().json()) as { token: string }).token;
    return answer;
  }

  async poll(state = 'idle'): Promise<Polled> {
    const answer = await fetch(`${this.world.control.url}/agent/v1/desired`, {
      headers: {
        authorization: `Bearer ${this.token}`,
        'agent-state': formatAgentState({
          running: this.running,
          state,
          healthy: true,
          seq: this.seq,
          boot: this.bootId,
          factsHash: null,
        }),
        ...(this.etag === null ? {} : { 'if-none-match': this.etag }),
      },
    });
    const text = await answer.text();
    if (answer.status === 200) this.etag = answer.headers.get('etag');
    return {
      status: answer.status,
      etag: answer.headers.get('etag') ?? '',
      pollAfter: Number(answer.headers.get('poll-after')),
      retryAfter: answer.headers.get('retry-after'),
      body: (text === '' ? {} : JSON.parse(text)) as Polled['body'],
    };
  }

  document(events: readonly ReportEvent[], more: Partial<ReportDocument> = {}): ReportDocument {
    this.seq += 1;
    return {
      schema: 'switchback.report/1',
      host: this.id,
      seq: this.seq,
      bootId: this.bootId,
      running: this.running,
      previous: this.previous,
      state: 'idle',
      why: '',
      healthy: true,
      agentVersion: '0.1.0',
      events: [...events],
      denied: [],
      ...more,
    };
  }

  sign(document: ReportDocument): Envelope {
    return signEnvelope(REPORT_PAYLOAD_TYPE, canonicalDocument(document), [this.signer]);
  }

  async send(envelope: Envelope): Promise<{ status: number; body: Record<string, unknown> }> {
    const answer = await fetch(`${this.world.control.url}/agent/v1/report`, {
      method: 'POST',
      headers: { authorization: `Bearer ${this.token}`, 'content-type': 'application/json' },
      body: JSON.stringify(envelope),
    });
    return { status: answer.status, body: (await answer.json()) as Record<string, unknown> };
  }

  report(
    events: readonly ReportEvent[],
    more: Partial<ReportDocument> = {},
  ): Promise<{ status: number; body: Record<string, unknown> }> {
    return this.send(this.sign(this.document(events, more)));
  }

  event(
    offer: NonNullable<Assignment['offer']>,
    attempt: string,
    phase: AttemptPhase,
    code: string | null = null,
  ): ReportEvent {
    return eventOf(
      versionIdOf(offer.artifactId, offer.configId),
      offer.rolloutId,
      attempt,
      phase,
      code,
    );
  }

  /** Takes the offer of the last poll to its end in one report. */
  async finish(
    offer: NonNullable<Assignment['offer']>,
    phase: AttemptPhase,
    code: string | null = null,
  ): Promise<void> {
    const attempt = hex(16);
    if (phase === 'confirmed') {
      this.previous = this.running;
      this.running = versionIdOf(offer.artifactId, offer.configId);
    }
    const phases: AttemptPhase[] =
      phase === 'refused' ? ['accepted', phase] : ['accepted', 'switching', 'trial', phase];
    const events = phases.map((p) => this.event(offer, attempt, p, p === phase ? code : null));
    const answer = await this.report(events);
    if (answer.status !== 202)
      throw new Error(`report answered ${answer.status} ${JSON.stringify(answer.body)}`);
  }

  /** Polls; when something is offered, confirms it. True when it was. */
  async follow(phase: AttemptPhase = 'confirmed', code: string | null = null): Promise<boolean> {
    this.etag = null;
    const { body } = await this.poll();
    if (body.offer === null || body.offer === undefined) return false;
    await this.finish(body.offer, phase, code);
    await this.world.control.engine.settled();
    return true;
  }
}

export function eventOf(
  artifactId: VersionId,
  rolloutId: RolloutId | null,
  attempt: string,
  phase: AttemptPhase,
  code: string | null = null,
): ReportEvent {
  return {
    id: hex(16),
    attempt,
    rolloutId,
    artifactId,
    phase,
    code,
    message: phase,
    at: 1,
    evidence: {},
  };
}

/** The secret half of the key that a test host has secrets sealed to. */
export function sealSecretOf(signer: Signer): Uint8Array {
  return Uint8Array.from(createHash('sha256').update(signer.key.bytes).digest());
}

/** An enrolment request as a host makes it, with what a test changes in it. */
export async function enrolWith(
  world: World,
  signer: Signer,
  request: { token: string; class?: string },
  changes: {
    signedBy?: Signer;
    headers?: Record<string, string>;
    body?: Uint8Array;
    nowS?: number;
    nonce?: string;
  } = {},
): Promise<{ status: number; text: string; headers: Record<string, string>; bytes: Uint8Array }> {
  const url = `${world.control.url}/agent/v1/enroll`;
  const bytes = Buffer.from(
    JSON.stringify({
      token: request.token,
      signKey: hexOf(signer.key.bytes),
      sealKey: hexOf(sealPublicKeyOf(sealSecretOf(signer))),
      class: request.class ?? 'web',
      arch: 'amd64',
      agentVersion: '0.1.0',
      facts: { kernel: '6.1' },
    }),
  );
  const headers = {
    ...signedHeaders(url, 'POST', bytes, changes.signedBy ?? signer, changes),
    ...changes.headers,
  };
  const answer = await fetch(url, {
    method: 'POST',
    body: (changes.body ?? bytes) as never,
    headers,
  });
  return { status: answer.status, text: await answer.text(), headers, bytes };
}
