/**
 * The real control in the simulation: its engine, store and HTTP handlers over an SQLite database in memory, without a socket.
 * It dies at any SQL statement, starts again on what was committed, and can be put back to an old backup.
 */
import { checkPatch } from '#/control/bundle-check.ts';
import { DatabaseSync } from 'node:sqlite';
import { pino } from 'pino';
import type { TransportAnswer, TransportRequest } from '#/agent/adapters/transport.ts';
import type { Signer } from '#/bundle/keys.ts';
import { signerOf } from '#/bundle/keys.ts';
import { shedLevelOf } from '#/control/core/poll.ts';
import type { Desk } from '#/control/engine/desk.ts';
import { startEngine, type Engine } from '#/control/engine/engine.ts';
import { createSignedLog } from '#/control/engine/log.ts';
import { createApiToken } from '#/control/engine/tokens.ts';
import { createBearers, createNonces } from '#/control/http/credentials.ts';
import { createEventHub } from '#/control/http/events.ts';
import { createRateLimit, type Gauge } from '#/control/http/gauge.ts';
import type { Services } from '#/control/http/handler.ts';
import { createApp } from '#/control/http/server.ts';
import { createStrays } from '#/control/http/strays.ts';
import { createSeenWriter, refreshTrust } from '#/control/jobs/clockwork.ts';
import { migrate, storeOver, type SqliteHandle } from '#/control/store/sqlite.ts';
import { createRepository } from '#/control/trust/delegations.ts';
import type { HeldKey } from '#/control/trust/repository.ts';
import { starterKeys } from '#/control/trust/starter.ts';
import { type Client, createClient } from '#/protocol/client.ts';
import { Problem } from '#/protocol/errors.ts';
import { seeded, type SimRandom } from './random.ts';
import type { SimTime } from './time.ts';

export const CONTROL_URL = 'http://control.sim';
const TICK_MS = 1000;
const FULL_TICK_EVERY = 15;
const SEEN_EVERY = 10;
const TRUST_EVERY = 300;
const ANSWER_MAX_BYTES = 1024 * 1024;

export interface SimControl {
  readonly isUp: boolean;
  readonly engine: Engine | null;
  readonly database: DatabaseSync;
  /** Grows with each restore: what was known of the store before is void. */
  readonly restores: number;
  readonly releaseKey: Signer;
  /** The operator, who is never cut off from a control that is up. */
  readonly operator: Client;
  serve(request: TransportRequest): Promise<TransportAnswer | null>;
  /** Requests that are being answered now. */
  readonly busy: number;
  /** Ends at the n-th SQL statement from now. */
  armKill(statements: number, onKilled: () => void): void;
  /** Ends now if the armed statement has not come. */
  killArmed(): void;
  kill(): void;
  /** Virtual time of the last restore; -1: none. */
  readonly restoredMs: number;
  start(): Promise<void>;
  backUp(): void;
  /** Puts back the backup of so many backups ago, while control is down. False: there is none. */
  restore(ago: number): boolean;
  readonly counts: { requests: number; kills: number; statements: number };
}

export interface SimControlOptions {
  readonly seed: number;
  readonly time: SimTime;
  readonly wallMs: () => number;
  /** A bug: an answer 500, or a job that failed by something unexpected. */
  readonly onBug: (what: string) => void;
}

/** A statement of a control that was killed. The store takes it for a failure of the database. */
function killed(): Error {
  return Object.assign(new Error('control was killed'), { code: 'ERR_SQLITE_ERROR' });
}

/** Makes the first store of a fleet and starts control. */
export async function simControl(options: SimControlOptions): Promise<SimControl> {
  const control = new Control(options);
  await control.init();
  return control;
}

interface Life {
  isDead: boolean;
  readonly app: ReturnType<typeof createApp>;
  readonly desk: Desk;
  readonly stopTicks: () => void;
}

class Control implements SimControl {
  database = new DatabaseSync(':memory:');
  restores = 0;
  restoredMs = -1;
  busy = 0;
  readonly counts = { requests: 0, kills: 0, statements: 0 };
  readonly releaseKey: Signer;
  readonly operator: Client;
  readonly #options: SimControlOptions;
  readonly #random: SimRandom;
  readonly #keys: readonly HeldKey[];
  readonly #root: readonly HeldKey[];
  readonly #backups: Uint8Array[] = [];
  #life: Life | null = null;
  #starting = false;
  #armed: { left: number; readonly onKilled: () => void } | null = null;
  #adminToken = '';

  constructor(options: SimControlOptions) {
    this.#options = options;
    this.#random = seeded(options.seed, 'control');
    const keys = starterKeys(() => this.#random.bytes(32));
    this.#keys = keys.control;
    this.#root = keys.root;
    const release = keys.control.find((key) => key.use === 'release');
    if (release === undefined) throw new Error('starter keys have a release key');
    this.releaseKey = release.signer;
    this.operator = createClient(async ({ method, path, headers, body }) => {
      const bytes = body instanceof Uint8Array ? body : null;
      const answer = await this.serve({
        method: method as 'GET',
        url: CONTROL_URL + path,
        headers: { ...headers, authorization: `Bearer ${this.#adminToken}` },
        body: bytes,
        maxBytes: ANSWER_MAX_BYTES,
      });
      if (answer === null) throw new Problem('E_NETWORK', 'control does not answer');
      return { ...answer, body: once(answer.body) };
    });
  }

  get isUp(): boolean {
    return this.#life !== null;
  }

  get engine(): Engine | null {
    return this.#life?.desk.engine ?? null;
  }

  async init(): Promise<void> {
    this.database.exec('PRAGMA foreign_keys = ON');
    migrate(this.database);
    const store = storeOver(this.database);
    const files = createRepository([...this.#root, ...this.#keys], this.#options.wallMs(), null);
    await store.write(async (writer) => {
      for (const file of files)
        await writer.putTrustFile(file.name, Buffer.from(file.bytes).toString('utf8'));
      await writer.setMeta('epoch', '1');
    });
    await this.start();
    const life = this.#life;
    if (life === null) throw new Error('control did not start');
    const order = { name: 'admin', role: 'admin' as const, ttlSeconds: null, groups: null };
    this.#adminToken = (await createApiToken(life.desk, order, 'init')).token;
  }

  async start(): Promise<void> {
    if (this.#life !== null || this.#starting) return;
    this.#starting = true;
    this.busy += 1;
    try {
      if (this.database.isTransaction) this.database.exec('ROLLBACK');
      this.#life = await this.#begin();
      this.#tickOn(this.#life, 1);
      await this.#guarded(this.#life, (desk) => refreshTrust(desk));
    } finally {
      this.#starting = false;
      this.busy -= 1;
    }
  }

  async #begin(): Promise<Life> {
    const nowMs = this.#options.wallMs;
    const alive = { isDead: false };
    const store = storeOver(this.#gate(alive));
    const hub = createEventHub();
    const engine = await startEngine({
      store,
      nowMs,
      onAudit: (entries) => hub.publish(entries),
    });
    const random = (bytes: number): Uint8Array => this.#random.bytes(bytes);
    const enrolment = signerOf(seeded(this.#options.seed, 'enrolment').bytes(32));
    const desk: Desk = { engine, keys: this.#keys, enrolment, logKey: null, gateKey: null, random };
    const services: Services = {
      desk,
      log: pino(
        { level: 'error' },
        { write: (line) => void (alive.isDead || this.#options.onBug(`control: ${line.trim()}`)) },
      ),
      gauge: simGauge(engine),
      bearers: createBearers(seeded(this.#options.seed, 'bearers').bytes(32)),
      nonces: createNonces(),
      strays: createStrays(),
      hub,
      signedLog: createSignedLog(desk),
      hostLimit: createRateLimit(200, 10_000),
      enrolLimit: createRateLimit(20, 60_000),
      refusalLimit: createRateLimit(20, 60_000),
      dataDir: '/nowhere',
      publicUrl: null,
      version: '0.0.0',
      verifyBundle: () => Promise.reject(new Error('bundles are admitted by reference')),
      verifyPatch: checkPatch,
      unit: () => this.#random.unit(),
      stopping: new AbortController().signal,
    };
    const ticks = { stop: (): void => undefined };
    return Object.assign(alive, {
      app: createApp(services),
      desk,
      stopTicks: () => ticks.stop(),
    });
  }

  /** The clockwork of control (control/jobs/clockwork.ts) on virtual time. */
  #tickOn(life: Life, count: number): void {
    const saveSeen = createSeenWriter(life.desk);
    const turn = (n: number): void => {
      if (life.isDead) return;
      void this.#turn(life, n, saveSeen);
      this.#options.time.at(this.#options.time.nowMs() + TICK_MS, () => turn(n + 1));
    };
    this.#options.time.at(this.#options.time.nowMs() + TICK_MS, () => turn(count));
  }

  async #turn(life: Life, n: number, saveSeen: () => Promise<void>): Promise<void> {
    await this.#guarded(life, (desk) => desk.engine.tick(n % FULL_TICK_EVERY === 0));
    if (n % SEEN_EVERY === 0) await this.#guarded(life, saveSeen);
    if (n % TRUST_EVERY === 0) await this.#guarded(life, (desk) => refreshTrust(desk));
  }

  async #guarded(life: Life, work: (desk: Desk) => Promise<unknown>): Promise<void> {
    this.busy += 1;
    try {
      await work(life.desk);
    } catch (error) {
      if (!life.isDead && !(error instanceof Problem))
        this.#options.onBug(`control: ${error instanceof Error ? (error.stack ?? '') : 'failed'}`);
    } finally {
      this.busy -= 1;
    }
  }

  /** Statements pass while this life lives, and are counted. */
  #gate(life: { isDead: boolean }): SqliteHandle {
    const pass = (): void => {
      if (life.isDead) throw killed();
      this.counts.statements += 1;
      if (this.#armed === null) return;
      this.#armed.left -= 1;
      if (this.#armed.left > 0) return;
      this.kill();
      throw killed();
    };
    const prepare: SqliteHandle['prepare'] = (sql) => {
      const statement = this.database.prepare(sql);
      return new Proxy(statement, {
        get(target, name) {
          const value: unknown = Reflect.get(target, name, target);
          if (typeof value !== 'function') return value;
          if (name !== 'all' && name !== 'run' && name !== 'iterate') return value.bind(target);
          return (...given: unknown[]): unknown => {
            pass();
            return Reflect.apply(value, target, given);
          };
        },
      });
    };
    return { prepare, close: () => undefined };
  }

  async serve(request: TransportRequest): Promise<TransportAnswer | null> {
    const life = this.#life;
    if (life === null) return null;
    this.counts.requests += 1;
    this.busy += 1;
    try {
      const body = request.body === null ? null : new Uint8Array(request.body);
      const init = { method: request.method, headers: { ...request.headers }, body };
      const response = await life.app.fetch(new Request(request.url, init));
      const bytes = new Uint8Array(await response.arrayBuffer());
      if (life.isDead) return null;
      return {
        status: response.status,
        headers: Object.fromEntries(response.headers),
        body: bytes,
      };
    } finally {
      this.busy -= 1;
    }
  }

  armKill(statements: number, onKilled: () => void): void {
    this.#armed = { left: statements, onKilled };
  }

  killArmed(): void {
    if (this.#armed !== null) this.kill();
  }

  kill(): void {
    const life = this.#life;
    const armed = this.#armed;
    this.#armed = null;
    if (life === null) return;
    life.isDead = true;
    this.#life = null;
    this.counts.kills += 1;
    armed?.onKilled();
  }

  backUp(): void {
    if (this.database.isTransaction) return;
    this.#backups.push(this.database.serialize());
    if (this.#backups.length > 4) this.#backups.shift();
  }

  restore(ago: number): boolean {
    const backup = this.#backups.at(-1 - ago);
    if (backup === undefined || this.#life !== null) return false;
    this.database = new DatabaseSync(':memory:');
    this.database.deserialize(backup);
    this.database.exec('PRAGMA foreign_keys = ON');
    this.restores += 1;
    this.restoredMs = this.#options.time.nowMs();
    return true;
  }
}

async function* once(bytes: Uint8Array): AsyncGenerator<Uint8Array> {
  yield await Promise.resolve(bytes);
}

/** The gauge without the delay of the real event loop, which is not of this world. */
function simGauge(engine: Engine): Gauge {
  let inFlight = 0;
  const counters = new Map<string, number>();
  return {
    get level() {
      const { oldestMs, isStoreDown } = engine.load;
      const signs = { loopDelayMs: 0, queueAgeMs: oldestMs, isStoreDown };
      return shedLevelOf({ ...signs, inFlight, maxInFlight: 5000 });
    },
    pollsPerMinute: 0,
    enter: () => void (inFlight += 1),
    leave: () => void (inFlight -= 1),
    polled: () => undefined,
    sample: () => undefined,
    stop: () => undefined,
    refusals: new Map(),
    refused: () => undefined,
    counters,
    count: (name) => void counters.set(name, (counters.get(name) ?? 0) + 1),
  };
}
