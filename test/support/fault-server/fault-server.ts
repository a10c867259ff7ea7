/**
 * An HTTP server, on loopback unless told otherwise, that serves one file and misbehaves as told, down to the byte: it speaks over a raw socket, so
 * that it can send what no HTTP library would.
 */
import { createServer, type Socket } from 'node:net';

export interface FaultRequest {
  /** Counts the requests of this server from 1. */
  readonly number: number;
  readonly path: string;
  readonly headers: Readonly<Record<string, string>>;
  /** First and last byte asked for, or null without a Range. */
  readonly range: readonly [number, number] | null;
}

/**
 * What a server does instead of answering well:
 * - `status`: answers with that status, `headers` and a short body.
 * - `cut`: a good answer whose connection ends after so many body bytes, by FIN or by RST.
 * - `whole`: 200 with the whole file, Range ignored.
 * - `contentRange`, `etag`, `length`: a good answer with that header changed; `length` null leaves it out.
 * - `extra`: so many bytes more than announced by Content-Range, Content-Length to match, or without end.
 * - `gzip`: says content-encoding gzip. - `stall`: silence after so many body bytes. - `drip`: a byte at a time.
 * - `noHead`: silence from the start. - `flip`: body with one bit changed at that offset of the file.
 * - `html`: 200 and a login page. - `raw`: exactly these bytes, then the end.
 */
export type Fault =
  | { readonly do: 'status'; readonly status: number; readonly headers?: Record<string, string> }
  | { readonly do: 'cut'; readonly after: number; readonly by: 'fin' | 'rst' }
  | { readonly do: 'whole' }
  | { readonly do: 'contentRange'; readonly text: string }
  | { readonly do: 'etag'; readonly etag: string }
  | { readonly do: 'length'; readonly text: string | null; readonly bytes?: number }
  | { readonly do: 'extra'; readonly bytes: number | 'endless' }
  | { readonly do: 'gzip' }
  | { readonly do: 'stall'; readonly after: number }
  | { readonly do: 'drip'; readonly everyMs: number }
  | { readonly do: 'noHead' }
  | { readonly do: 'flip'; readonly at: number }
  | { readonly do: 'html' }
  | { readonly do: 'raw'; readonly bytes: string };

export interface FaultServer extends AsyncDisposable {
  readonly url: string;
  readonly requests: FaultRequest[];
  /** Body bytes that were sent. */
  sentBytes(): number;
}

/**
 * Serves `file` at any path, and `patch` at paths that end in .patch; without one those are answered 404 and not counted, as
 * hosts with a live version ask for one first. `fault` decides for each request; null answers it well.
 */
export async function startFaultServer(
  file: Uint8Array,
  fault: (request: FaultRequest) => Fault | null = () => null,
  patch: Uint8Array | null = null,
  host = '127.0.0.1',
): Promise<FaultServer> {
  const requests: FaultRequest[] = [];
  const sockets = new Set<Socket>();
  const sent = { bytes: 0 };
  const server = createServer((socket) => {
    sockets.add(socket);
    socket.on('close', () => sockets.delete(socket));
    socket.on('error', () => undefined);
    let head = '';
    socket.on('data', (data) => {
      head += data.toString('latin1');
      for (let end = head.indexOf('\r\n\r\n'); end >= 0; end = head.indexOf('\r\n\r\n')) {
        const request = parse(head.slice(0, end), requests.length + 1);
        head = head.slice(end + 4);
        const isPatch = request.path.endsWith('.patch');
        if (isPatch && patch === null) {
          socket.write('HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n');
          continue;
        }
        requests.push(request);
        answer(socket, isPatch && patch !== null ? patch : file, request, fault(request), sent);
      }
    });
  });
  await new Promise<void>((resolve) => server.listen(0, host, resolve));
  const address = server.address();
  if (address === null || typeof address === 'string') throw new Error('no port');
  return {
    url: `http://${host}:${address.port}/app.bundle`,
    requests,
    sentBytes: () => sent.bytes,
    async [Symbol.asyncDispose]() {
      for (const socket of sockets) socket.destroy();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}

function parse(head: string, number: number): FaultRequest {
  const [first = '', ...lines] = head.split('\r\n');
  const headers: Record<string, string> = {};
  for (const line of lines) {
    const colon = line.indexOf(':');
    headers[line.slice(0, colon).toLowerCase()] = line.slice(colon + 1).trim();
  }
  const match = /^bytes=(\d+)-(\d+)$/.exec(headers['range'] ?? '');
  const range = match === null ? null : ([Number(match[1]), Number(match[2])] as const);
  return { number, path: first.split(' ')[1] ?? '', headers, range };
}

const DEFAULT_ETAG = '"first"';

function answer(
  socket: Socket,
  file: Uint8Array,
  request: FaultRequest,
  fault: Fault | null,
  sent: { bytes: number },
): void {
  const ignoresRange = fault?.do === 'whole' || request.range === null;
  const [first, last] = ignoresRange ? [0, file.length - 1] : (request.range ?? [0, 0]);
  const body = Buffer.from(file.subarray(first, last + 1));
  const send = (bytes: Uint8Array | string): void => {
    if (typeof bytes !== 'string') sent.bytes += bytes.length;
    socket.write(bytes);
  };
  const head = (status: string, changed: Readonly<Record<string, string | null>>): string => {
    const headers: Record<string, string | null> = {
      etag: DEFAULT_ETAG,
      'content-length': String(body.length),
      'content-range': ignoresRange
        ? null
        : `bytes ${first}-${first + body.length - 1}/${file.length}`,
      ...changed,
    };
    const lines = Object.entries(headers).flatMap(([name, value]) =>
      value === null ? [] : [`${name}: ${value}\r\n`],
    );
    return `HTTP/1.1 ${status}\r\n${lines.join('')}\r\n`;
  };
  const good = (changed: Readonly<Record<string, string | null>> = {}): string =>
    head(ignoresRange ? '200 OK' : '206 Partial Content', changed);
  if (request.range !== null && !ignoresRange && first >= file.length) {
    send(head('416 Range Not Satisfiable', { 'content-length': '0', 'content-range': null }));
    return;
  }
  if (fault === null || fault.do === 'whole') {
    send(good());
    send(body);
    return;
  }
  misbehave(socket, fault, body, first, { send, good, head });
}

interface Voice {
  readonly send: (bytes: Uint8Array | string) => void;
  readonly good: (changed?: Readonly<Record<string, string | null>>) => string;
  readonly head: (status: string, changed: Readonly<Record<string, string | null>>) => string;
}

function misbehave(
  socket: Socket,
  fault: Exclude<Fault, { do: 'whole' }>,
  body: Buffer,
  first: number,
  { send, good, head }: Voice,
): void {
  switch (fault.do) {
    case 'status':
      send(
        head(`${fault.status} Told So`, {
          'content-length': '3',
          'content-range': null,
          ...fault.headers,
        }),
      );
      send('no\n');
      return;
    case 'cut':
      send(good());
      send(body.subarray(0, fault.after));
      if (fault.by === 'fin') socket.end();
      // After the bytes went out: a reset drops what the kernel still holds.
      else setTimeout(() => socket.resetAndDestroy(), 20);
      return;
    case 'contentRange':
      send(good({ 'content-range': fault.text }));
      send(body);
      return;
    case 'etag':
      send(good({ etag: fault.etag }));
      send(body);
      return;
    case 'length':
      send(good({ 'content-length': fault.text }));
      send(fault.bytes === undefined ? body : body.subarray(0, fault.bytes));
      socket.end();
      return;
    case 'extra':
      sendTooMuch(socket, fault.bytes, body, { send, good, head });
      return;
    case 'gzip':
      send(good({ 'content-encoding': 'gzip' }));
      send(body);
      return;
    case 'stall':
      send(good());
      send(body.subarray(0, fault.after));
      return;
    case 'drip':
      drip(socket, good(), body, fault.everyMs);
      return;
    case 'noHead':
      return;
    case 'flip': {
      if (fault.at >= first && fault.at < first + body.length) {
        body[fault.at - first] = (body[fault.at - first] ?? 0) ^ 0x10;
      }
      send(good());
      send(body);
      return;
    }
    case 'html': {
      const page = '<html><body>Please log in to use this network.</body></html>\n'.repeat(8000);
      send(head('200 OK', { 'content-length': String(page.length), 'content-range': null }));
      send(page);
      return;
    }
    case 'raw':
      send(fault.bytes);
      socket.end();
  }
}

function sendTooMuch(
  socket: Socket,
  bytes: number | 'endless',
  body: Buffer,
  { send, good }: Voice,
): void {
  if (bytes !== 'endless') {
    send(good({ 'content-length': null, connection: 'close' }));
    send(body);
    send(Buffer.alloc(bytes));
    socket.end();
    return;
  }
  send(good({ 'content-length': null, connection: 'close' }));
  send(body);
  const more = (): void => {
    while (!socket.destroyed && socket.write(Buffer.alloc(65_536)));
  };
  socket.on('drain', more);
  more();
}

function drip(socket: Socket, head: string, body: Buffer, everyMs: number): void {
  socket.write(head);
  let at = 0;
  const timer = setInterval(() => {
    if (socket.destroyed || at >= body.length) clearInterval(timer);
    else socket.write(body.subarray(at, at + 1));
    at += 1;
  }, everyMs);
  socket.on('close', () => clearInterval(timer));
}
