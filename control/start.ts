/** Control as a whole: opens the data directory, starts the engine and serves. Called by main.ts, and by tests. */
import { randomBytes, randomInt } from 'node:crypto';
import { once } from 'node:events';
import {
  createServer as createHttpServer,
  IncomingMessage,
  type Server,
  ServerResponse,
} from 'node:http';
import { createServer as createHttpsServer } from 'node:https';
import type { AddressInfo } from 'node:net';
import { getRequestListener } from '@hono/node-server';
import { pino, type Logger } from 'pino';
import { Problem } from '#/protocol/errors.ts';
import {
  adminTokenPath,
  createSecretFile,
  type DataDir,
  firstTrustFiles,
  initDataDir,
  openDataDir,
} from './data-dir.ts';
import type { Desk } from './engine/desk.ts';
import { createSignedLog } from './engine/log.ts';
import { startEngine, type Engine } from './engine/engine.ts';
import { createApiToken } from './engine/tokens.ts';
import { createBearers, createNonces } from './http/credentials.ts';
import { createEventHub } from './http/events.ts';
import { createGauge, createRateLimit } from './http/gauge.ts';
import type { Services, VerifyBundle, VerifyPatch } from './http/handler.ts';
import { tryQuietPoll } from './http/poll.ts';
import { sweepUploads } from './http/release-handlers.ts';
import { createApp } from './http/server.ts';
import { createStrays } from './http/strays.ts';
import { refreshTrust, startClockwork } from './jobs/clockwork.ts';
import { type DataLock, lockDataDir } from './lock.ts';
import { openSqliteStore } from './store/sqlite.ts';

export interface ControlOptions {
  readonly dataDir: string;
  /** 0: a free port. */
  readonly port: number;
  readonly host?: string;
  readonly tls?: { readonly cert: string; readonly key: string };
  readonly publicUrl?: string;
  readonly log?: Logger;
  readonly nowMs?: () => number;
  /** How often active rollouts are looked at. */
  readonly tickMs?: number;
  /** Told of every SQL statement. */
  readonly onQuery?: (sql: string) => void;
  /** Requests of one host per ten seconds. */
  readonly maxHostRequests?: number;
  readonly maxInFlight?: number;
  readonly verifyBundle: VerifyBundle;
  readonly verifyPatch: VerifyPatch;
}

export interface Control {
  readonly url: string;
  readonly port: number;
  readonly engine: Engine;
  readonly desk: Desk;
  /** Answers what is open, stops, closes the store. */
  stop(): Promise<void>;
}

export const VERSION = '0.1.0';
const HEADERS_TIMEOUT_MS = 10_000;
const KEEP_ALIVE_MS = 65_000;
const MAX_CONNECTIONS = 20_000;
const MAX_HEADERS = 100;
const STOP_TIMEOUT_MS = 10_000;

/**
 * Makes the data directory: keys, the first signed metadata, the first admin token. Running it again changes nothing and
 * gives null; otherwise the token of `admin`, which also stands in `admin.token` (0600).
 */
export async function initControl(
  dataDir: string,
  nowMs: () => number = Date.now,
): Promise<string | null> {
  await initDataDir(dataDir);
  const dir = await openDataDir(dataDir);
  const store = openSqliteStore({ path: dir.database });
  try {
    if ((await store.trustFiles()).size === 0) {
      const files = await firstTrustFiles(dir, nowMs());
      await store.write(async (writer) => {
        for (const file of files)
          await writer.putTrustFile(file.name, Buffer.from(file.bytes).toString('utf8'));
        await writer.setMeta('epoch', '1');
        await writer.audit({
          atMs: nowMs(),
          actor: 'control',
          type: 'init',
          subject: 'fleet',
          details: {},
        });
      });
    }
    const engine = await startEngine({ store, nowMs });
    if (engine.fleet.apiTokens.size > 0) return null;
    const desk = {
      engine,
      keys: dir.trustKeys,
      enrolment: dir.enrolment,
      logKey: dir.logKey,
      gateKey: dir.gateKey,
      random: randomBytes,
    };
    const order = { name: 'admin', role: 'admin' as const, ttlSeconds: null, groups: null };
    const { token } = await createApiToken(desk, order, 'init');
    if (!(await createSecretFile(adminTokenPath(dataDir), `${token}\n`)))
      throw new Problem(
        'E_CONFLICT',
        `${adminTokenPath(dataDir)} exists, but its token does not; remove it`,
      );
    return token;
  } finally {
    await store.close();
  }
}

function createListener(
  options: ControlOptions,
  services: Services,
  fetch: Parameters<typeof getRequestListener>[0],
): Server {
  const limits = {
    headersTimeout: HEADERS_TIMEOUT_MS,
    // Bodies have their own deadlines: an upload of 60 GB takes its time.
    requestTimeout: 0,
    keepAliveTimeout: KEEP_ALIVE_MS,
    connectionsCheckingInterval: 2000,
  };
  const listener = getRequestListener(fetch, { overrideGlobalObjects: false });
  const handle = (
    request: Parameters<typeof listener>[0],
    response: Parameters<typeof listener>[1],
  ): void => {
    // Nearly all requests of a fleet are quiet polls.
    if (
      request instanceof IncomingMessage &&
      response instanceof ServerResponse &&
      tryQuietPoll(services, request, response)
    )
      return;
    void listener(request, response);
  };
  const server =
    options.tls === undefined
      ? createHttpServer(limits, handle)
      : createHttpsServer({ ...limits, ...options.tls, minVersion: 'TLSv1.3' }, handle);
  server.maxConnections = MAX_CONNECTIONS;
  server.maxHeadersCount = MAX_HEADERS;
  return server;
}

async function servicesOf(
  options: ControlOptions,
  dir: DataDir,
  stopping: AbortSignal,
): Promise<Services> {
  const log = options.log ?? pino({ level: 'silent' });
  await sweepUploads(options.dataDir);
  const hub = createEventHub();
  const store = openSqliteStore({
    path: dir.database,
    ...(options.onQuery === undefined ? {} : { onQuery: options.onQuery }),
  });
  const engine = await startEngine({
    store,
    nowMs: options.nowMs ?? Date.now,
    onAudit: (entries) => hub.publish(entries),
    onDecision: (group, decision) =>
      log.info(
        { component: 'engine', event: 'decision', group, kind: decision.kind },
        decision.words,
      ),
    onPlanFailure: (error) =>
      log.warn({ err: error }, 'a plan could not be stored; it is made again'),
  });
  const desk = {
    engine,
    keys: dir.trustKeys,
    enrolment: dir.enrolment,
    logKey: dir.logKey,
    gateKey: dir.gateKey,
    random: randomBytes,
  };
  return {
    desk,
    signedLog: createSignedLog(desk),
    log,
    gauge: createGauge(engine, options.maxInFlight),
    bearers: createBearers(dir.bearerKey),
    nonces: createNonces(),
    strays: createStrays(),
    hub,
    hostLimit: createRateLimit(options.maxHostRequests ?? 200, 10_000),
    enrolLimit: createRateLimit(20, 60_000),
    refusalLimit: createRateLimit(10, 60_000),
    dataDir: options.dataDir,
    publicUrl: options.publicUrl ?? null,
    version: VERSION,
    verifyBundle: options.verifyBundle,
    verifyPatch: options.verifyPatch,
    unit: () => randomInt(2 ** 32) / 2 ** 32,
    stopping,
  };
}

async function listen(server: Server, port: number, host: string): Promise<void> {
  try {
    server.listen({ port, host });
    await once(server, 'listening');
  } catch (cause) {
    const code = cause instanceof Error && 'code' in cause ? String(cause.code) : '';
    if (code === 'EADDRINUSE')
      throw new Problem('E_BUSY', `another program listens on ${host}:${port}`, {}, { cause });
    throw new Problem('E_CONFIG', `cannot listen on ${host}:${port}: ${code}`, {}, { cause });
  }
}

/**
 * Serves a directory that `initControl` made. Resolves once it listens.
 * @throws Problem E_BUSY when another control serves the directory or something listens on the port, E_CONFIG.
 */
export async function startControl(options: ControlOptions): Promise<Control> {
  const dir = await openDataDir(options.dataDir);
  const lock = lockDataDir(options.dataDir);
  try {
    return await startLocked(options, dir, lock);
  } catch (error) {
    lock.release();
    throw error;
  }
}

async function startLocked(
  options: ControlOptions,
  dir: DataDir,
  lock: DataLock,
): Promise<Control> {
  const stopping = new AbortController();
  const services = await servicesOf(options, dir, stopping.signal);
  const { desk, log, gauge } = services;
  await refreshTrust(desk);
  const app = createApp(services);
  const server = createListener(options, services, (request, env) =>
    app.fetch(request, env as never),
  );
  try {
    await listen(server, options.port, options.host ?? '127.0.0.1');
  } catch (error) {
    gauge.stop();
    await desk.engine.store.close();
    throw error;
  }
  const clockwork = startClockwork({
    desk,
    gauge,
    log,
    ...(options.tickMs === undefined ? {} : { tickMs: options.tickMs }),
  });
  const { port, address, family } = server.address() as AddressInfo;
  const name = family === 'IPv6' ? `[${address}]` : address;
  const url = `${options.tls === undefined ? 'http' : 'https'}://${name}:${port}`;
  log.info(
    { component: 'control', event: 'listening', url, dataDir: options.dataDir },
    `listening on ${url}`,
  );
  return {
    url,
    port,
    engine: desk.engine,
    desk,
    stop: async () => {
      if (stopping.signal.aborted) return;
      stopping.abort();
      const closed = new Promise<void>((resolve) => {
        server.close(() => resolve());
      });
      server.closeIdleConnections();
      // Answers that are still open get their time; then the connections end.
      const timer = setTimeout(() => server.closeAllConnections(), STOP_TIMEOUT_MS);
      await closed;
      clearTimeout(timer);
      await clockwork.stop();
      await desk.engine.settled();
      gauge.stop();
      await desk.engine.store.close();
      lock.release();
    },
  };
}
