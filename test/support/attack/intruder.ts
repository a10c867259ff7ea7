/**
 * Somebody in the place of control: stands in front of a real one, passes on what helps, answers polls as he likes, serves
 * bundles, and reads the reports that pass. What he does with its database and its keys is done to the real one.
 */
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import type { Assignment, Envelope, ReportDocument } from '#/protocol/documents.ts';

export class Intruder {
  readonly #server: Server;
  readonly #control: () => string;
  /** By host. What a poll is answered instead of the truth. */
  readonly offers = new Map<string, Assignment>();
  readonly bundles = new Map<string, Uint8Array>();
  readonly reports: ReportDocument[] = [];

  private constructor(control: () => string) {
    this.#control = control;
    this.#server = createServer((request, response) => {
      this.#answer(request, response).catch(() => response.destroy());
    });
  }

  static async start(control: () => string): Promise<Intruder> {
    const intruder = new Intruder(control);
    await new Promise<void>((done) => intruder.#server.listen(0, '127.0.0.1', done));
    return intruder;
  }

  get url(): string {
    return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
  }

  async stop(): Promise<void> {
    this.#server.closeAllConnections();
    await new Promise((done) => this.#server.close(done));
  }

  async #answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const { url = '', method = 'GET', headers } = request;
    const parts: Buffer[] = [];
    for await (const part of request as AsyncIterable<Buffer>) parts.push(part);
    const body = Buffer.concat(parts);
    const bundle = this.bundles.get(url.replace('/bundle/', ''));
    if (bundle !== undefined) {
      response.writeHead(200, { 'content-length': bundle.length, etag: '"one"' }).end(bundle);
      return;
    }
    if (url === '/agent/v1/report') this.#read(body);
    const offer = this.offers.get(hostOf(headers.authorization ?? ''));
    if (url === '/agent/v1/desired' && offer !== undefined) {
      const head = { etag: `"${offer.generation}"`, 'poll-after': '0.2' };
      response.writeHead(200, { 'content-type': 'application/json', ...head });
      response.end(JSON.stringify(offer));
      return;
    }
    const passed = await fetch(`${this.#control()}${url}`, {
      method,
      headers: forwarded(headers),
      ...(method === 'GET' ? {} : { body }),
    });
    const bytes = Buffer.from(await passed.arrayBuffer());
    const kept = [...passed.headers].filter(([name]) => !HOP.has(name));
    response.writeHead(passed.status, Object.fromEntries(kept)).end(bytes);
  }

  #read(body: Buffer): void {
    const envelope = JSON.parse(body.toString()) as Envelope;
    const payload = Buffer.from(envelope.payload, 'base64').toString();
    this.reports.push(JSON.parse(payload) as ReportDocument);
  }
}

const HOP = new Set(['connection', 'keep-alive', 'transfer-encoding', 'content-length', 'date']);

function forwarded(headers: IncomingMessage['headers']): Record<string, string> {
  return Object.fromEntries(
    Object.entries(headers).flatMap(([name, value]) =>
      HOP.has(name) || name === 'host' || value === undefined ? [] : [[name, String(value)]],
    ),
  );
}

const hostOf = (authorization: string): string => /h-[0-9a-f]{32}/.exec(authorization)?.[0] ?? '';
