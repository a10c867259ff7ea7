/** A control in the hands of a test: serves whatever is in a repository and a bundle, and keeps every report that comes. */
import type { ServerResponse } from 'node:http';
import { openEnvelope } from '#/bundle/dsse.ts';
import { bytesOfHex, publicKeyOf, sha256 } from '#/bundle/keys.ts';
import {
  type Assignment,
  type Envelope,
  REPORT_PAYLOAD_TYPE,
  type ReportDocument,
} from '#/protocol/documents.ts';
import { formatInvitation } from '#/protocol/join-token.ts';
import {
  type ControlStub,
  enrolmentKey,
  type Seen,
  startControlStub,
} from '#/test/support/control-stub/control-stub.ts';
import type { TrustWorld } from '#/test/support/trust-world.ts';

/** Answers a request itself, or returns false to leave it to what would answer otherwise. */
export type Interference = (seen: Seen, response: ServerResponse) => boolean;

/** The group of the repository that tests make. */
const GROUP = 'blue';

export class HostileControl {
  readonly stub: ControlStub;
  readonly #world: () => TrustWorld;
  #signKey: Uint8Array | null = null;
  /** Reports that the key of the host signed, in the order in which they came. */
  readonly reports: ReportDocument[] = [];
  /** What a poll is answered; null: there is nothing new and never was. */
  assignment: Assignment | null = null;
  /** What is served as bundle, by artifact id. */
  readonly bundles = new Map<string, Uint8Array>();
  interfere: Interference = () => false;
  /** Changes what a host is answered that asks for a bearer. */
  changeToken: (body: object) => object = (body) => body;
  /** With it control vouches for hosts and signs its time. */
  readonly enrolmentKey = enrolmentKey;

  private constructor(stub: ControlStub, world: () => TrustWorld) {
    this.stub = stub;
    this.#world = world;
  }

  static async start(
    world: () => TrustWorld,
    tls?: { cert: string; key: string },
  ): Promise<HostileControl> {
    const control = new HostileControl(await startControlStub(tls), world);
    control.#serve();
    return control;
  }

  get url(): string {
    return this.stub.url;
  }

  invitation(caPem: string | null = null): string {
    return formatInvitation({
      controlUrls: [this.url],
      token: `sbj_${'t'.repeat(22)}`,
      rootSha256: sha256(this.#root()),
      caPem,
    });
  }

  useCertificate(tls: { cert: string; key: string }): void {
    this.stub.useCertificate(tls);
  }

  bundleUrl(artifactId: string): string {
    return `${this.url}/bundle/${artifactId}`;
  }

  #root(): Uint8Array {
    const root = this.#world().files.get('metadata/1.root.json');
    if (root === undefined) throw new Error('the repository has no first root');
    return root;
  }

  #serve(): void {
    const { handlers } = this.stub;
    const plainEnrol = handlers.get('POST /agent/v1/enroll');
    handlers.set('POST /agent/v1/enroll', (seen, response) => {
      const { signKey } = JSON.parse(seen.body) as { signKey: string };
      this.#signKey = bytesOfHex(signKey, 32);
      const answer = plainEnrol?.(seen, response) ?? { status: 500 };
      const root = this.#root();
      const body = answer.body as { host: string };
      const own = {
        group: GROUP,
        statement: this.stub.statement(body.host, GROUP),
        root: Buffer.from(root).toString('utf8'),
        rootSha256: sha256(root),
      };
      return { ...answer, body: { ...body, ...own } };
    });
    const plainToken = handlers.get('POST /agent/v1/token');
    handlers.set('POST /agent/v1/token', (seen, response) => {
      const { host } = JSON.parse(seen.body) as { host: string };
      // Hosts whose clock is wrong are let in as well: what they make of metadata is what is looked at.
      const answer = plainToken?.({ ...seen, signedBy: host }, response) ?? { status: 500 };
      if (answer.status !== 200) return answer;
      const statement = this.stub.statement(host, GROUP);
      return { ...answer, body: this.changeToken({ ...(answer.body as object), statement }) };
    });
    handlers.set('POST /agent/v1/report', ({ body }) => {
      const report = this.#read(JSON.parse(body) as Envelope);
      this.reports.push(report);
      return {
        status: 202,
        body: { ackSeq: report.seq, wantFacts: false, pollAfterSeconds: 1 },
      };
    });
    handlers.set('GET /agent/v1/desired', ({ headers }) => {
      const text = JSON.stringify(this.assignment);
      const etag = `"${sha256(Buffer.from(text)).slice(0, 16)}"`;
      const common = { etag, 'poll-after': '0.2' };
      if (this.assignment === null || headers['if-none-match'] === etag)
        return { status: 304, headers: common };
      return { status: 200, headers: common, body: this.assignment };
    });
    handlers.set('*', (seen, response) => {
      if (!this.interfere(seen, response)) this.#serveFile(seen, response);
      return null;
    });
  }

  /** Only what the key of the host signed is a report. */
  #read(envelope: Envelope): ReportDocument {
    const key = publicKeyOf(this.#signKey ?? new Uint8Array());
    const trust = { keys: [key], threshold: 1, payloadType: REPORT_PAYLOAD_TYPE };
    return JSON.parse(Buffer.from(openEnvelope(envelope, trust)).toString()) as ReportDocument;
  }

  #serveFile({ path, headers }: Seen, response: ServerResponse): void {
    const bundle = /^\/bundle\/([0-9a-f]{64})$/.exec(path)?.[1];
    if (bundle !== undefined) {
      serveRange(this.bundles.get(bundle), headers['range'], response);
      return;
    }
    const rest = decodeURIComponent(path.replace('/agent/v1/trust/', ''));
    const bytes = rest.startsWith('log/')
      ? this.#world().logTile(rest.slice('log/'.length))
      : (this.#world().files.get(rest) ?? null);
    if (bytes === null) response.writeHead(404).end('{}');
    else response.writeHead(200, { 'content-length': bytes.length }).end(bytes);
  }
}

function serveRange(
  file: Uint8Array | undefined,
  range: string | undefined,
  response: ServerResponse,
): void {
  if (file === undefined) {
    response.writeHead(404).end();
    return;
  }
  const asked = /^bytes=(\d+)-(\d*)$/.exec(range ?? '');
  if (asked === null) {
    response.writeHead(200, { 'content-length': file.length, etag: '"one"' }).end(file);
    return;
  }
  const from = Number(asked[1]);
  const to = asked[2] === '' ? file.length - 1 : Math.min(Number(asked[2]), file.length - 1);
  const part = file.subarray(from, to + 1);
  response.writeHead(206, {
    'content-length': part.length,
    'content-range': `bytes ${from}-${to}/${file.length}`,
    'accept-ranges': 'bytes',
    etag: '"one"',
  });
  response.end(part);
}
