/** The store over Kysely: the same for every database that Kysely speaks. */
import type { Kysely } from 'kysely';
import type { Attempt, Group, Host, Pin, Rollout } from '#/control/core/model.ts';
import { ATTEMPTS_IN_MEMORY } from '#/control/core/model.ts';
import { Problem } from '#/protocol/errors.ts';
import type { AuditEntry } from '#/protocol/operator-plane.ts';
import type { DecisionView } from '#/protocol/rollout.ts';
import { fillLog, logSize, tileHashes } from './log.ts';
import type { ApiToken, FleetRows, Store } from './port.ts';
import {
  attemptOf,
  eventOf,
  groupOf,
  hostOf,
  joinTokenOf,
  pinOf,
  releaseOf,
  rolloutOf,
} from './rows.ts';
import type { Tables } from './schema.ts';
import { createWriter } from './writer.ts';

type Db = Kysely<Tables>;

function decisionOf(row: Tables['decisions']): DecisionView {
  return {
    id: row.id,
    atMs: row.at_ms,
    kind: row.kind,
    host: row.host_id as DecisionView['host'],
    stage: row.stage,
    words: row.words,
  };
}

function auditOf(row: Tables['audit']): AuditEntry {
  return {
    id: row.id,
    atMs: row.at_ms,
    actor: row.actor,
    type: row.type,
    subject: row.subject,
    details: JSON.parse(row.details) as AuditEntry['details'],
  };
}

async function auditAfter(
  db: Db,
  after: number,
  limit: number,
  subject: string | null,
): Promise<readonly AuditEntry[]> {
  let query = db.selectFrom('audit').selectAll().where('id', '>', after);
  if (subject !== null) query = query.where('subject', '=', subject);
  return (await query.orderBy('id').limit(limit).execute()).map(auditOf);
}

function apiTokenOf(row: Tables['api_tokens']): ApiToken {
  return {
    id: row.id,
    hash: row.hash,
    name: row.name,
    role: row.role as ApiToken['role'],
    createdAtMs: row.created_at_ms,
    expiresAtMs: row.expires_at_ms,
    revokedAtMs: row.revoked_at_ms,
    groups: row.groups === null ? null : (JSON.parse(row.groups) as ApiToken['groups']),
  };
}

/** Active pins by group, and by host. */
async function loadPins(db: Db): Promise<{ groups: Map<string, Pin>; hosts: Map<string, Pin> }> {
  const groups = new Map<string, Pin>();
  const hosts = new Map<string, Pin>();
  const rows = await db
    .selectFrom('pins')
    .selectAll()
    .where('removed_at_ms', 'is', null)
    .orderBy('seq')
    .execute();
  for (const row of rows)
    if (row.host_id === null) groups.set(row.group_name, pinOf(row));
    else hosts.set(row.host_id, pinOf(row));
  return { groups, hosts };
}

async function loadHosts(db: Db, pins: ReadonlyMap<string, Pin>): Promise<readonly Host[]> {
  const attempts = new Map<string, Attempt[]>();
  for (const row of await db
    .selectFrom('attempts')
    .selectAll()
    .orderBy('host_id')
    .orderBy('n')
    .execute()) {
    const list = attempts.get(row.host_id) ?? [];
    list.push(attemptOf(row));
    if (list.length > ATTEMPTS_IN_MEMORY) list.shift();
    attempts.set(row.host_id, list);
  }
  const rows = await db
    .selectFrom('hosts')
    .leftJoin('host_seen', 'host_seen.host_id', 'hosts.id')
    .selectAll('hosts')
    .select('host_seen.last_seen_at_ms')
    .orderBy('hosts.id')
    .execute();
  return rows.map((row) =>
    hostOf(row, {
      pin: pins.get(row.id) ?? null,
      lastSeenAtMs: row.last_seen_at_ms,
      attempts: attempts.get(row.id) ?? [],
    }),
  );
}

/** Rollouts that are not over, and the newest of each group. */
async function loadRollouts(db: Db): Promise<readonly Rollout[]> {
  const newest = new Map<string, Rollout>();
  const rows = await db
    .selectFrom('rollouts')
    .selectAll()
    .orderBy('started_at_ms')
    .orderBy('pin_seq')
    .execute();
  for (const row of rows) newest.set(row.group_name, rolloutOf(row));
  return [...newest.values()];
}

async function load(db: Db): Promise<FleetRows> {
  const pins = await loadPins(db);
  const groups: Group[] = (
    await db.selectFrom('fleet_groups').selectAll().orderBy('name').execute()
  ).map((row) => groupOf(row, pins.groups.get(row.name) ?? null));
  const last = await db
    .selectFrom('audit')
    .select((eb) => eb.fn.max('id').as('last'))
    .executeTakeFirst();
  return {
    meta: new Map(
      (await db.selectFrom('meta').selectAll().execute()).map((row) => [row.name, row.value]),
    ),
    groups,
    releases: (await db.selectFrom('releases').selectAll().execute()).map(releaseOf),
    hosts: await loadHosts(db, pins.hosts),
    rollouts: await loadRollouts(db),
    halts: (await db.selectFrom('halts').selectAll().execute()).map((row) => ({
      scope: row.scope,
      reason: row.reason,
      actor: row.actor,
      atMs: row.at_ms,
    })),
    apiTokens: (await db.selectFrom('api_tokens').selectAll().execute()).map(apiTokenOf),
    lastAuditId: Number(last?.last ?? 0),
  };
}

function rolloutReads(
  db: Db,
): Pick<Store, 'rollout' | 'rollouts' | 'decisions' | 'lastDecisions' | 'attempts' | 'attemptsOf'> {
  return {
    async rollout(id) {
      const row = await db
        .selectFrom('rollouts')
        .selectAll()
        .where('id', '=', id)
        .executeTakeFirst();
      return row === undefined ? null : rolloutOf(row);
    },
    async rollouts(filter, before, limit) {
      let query = db.selectFrom('rollouts').selectAll();
      if (filter.group !== undefined) query = query.where('group_name', '=', filter.group);
      if (filter.state !== undefined) query = query.where('state', '=', filter.state);
      const [ms, id] = before?.split('/') ?? [];
      if (ms !== undefined && id !== undefined)
        query = query.where((eb) =>
          eb.or([
            eb('started_at_ms', '<', Number(ms)),
            eb.and([eb('started_at_ms', '=', Number(ms)), eb('id', '<', id)]),
          ]),
        );
      const rows = await query
        .orderBy('started_at_ms', 'desc')
        .orderBy('id', 'desc')
        .limit(limit + 1)
        .execute();
      const items = rows.slice(0, limit).map(rolloutOf);
      const last = items.at(-1);
      const isMore = rows.length > limit && last !== undefined;
      return { items, nextCursor: isMore ? `${last.startedAtMs}/${last.id}` : null };
    },
    async decisions(rollout, after, limit) {
      const rows = await db
        .selectFrom('decisions')
        .selectAll()
        .where('rollout_id', '=', rollout)
        .where('id', '>', after)
        .orderBy('id')
        .limit(limit)
        .execute();
      return rows.map(decisionOf);
    },
    async lastDecisions(rollout, limit) {
      const rows = await db
        .selectFrom('decisions')
        .selectAll()
        .where('rollout_id', '=', rollout)
        .orderBy('id', 'desc')
        .limit(limit)
        .execute();
      return rows.map(decisionOf).reverse();
    },
    async attempts(host, limit) {
      const rows = await db
        .selectFrom('attempts')
        .selectAll()
        .where('host_id', '=', host)
        .orderBy('n', 'desc')
        .limit(limit)
        .execute();
      return rows.map(attemptOf);
    },
    async attemptsOf(rollout) {
      const rows = await db
        .selectFrom('attempts')
        .selectAll()
        .where('rollout_id', '=', rollout)
        .orderBy('host_id')
        .orderBy('n')
        .execute();
      return rows.map(attemptOf);
    },
  };
}

function evidenceReads(
  db: Db,
): Pick<
  Store,
  | 'events'
  | 'report'
  | 'auditAfter'
  | 'logSize'
  | 'logTile'
  | 'joinTokens'
  | 'trustFile'
  | 'trustFiles'
> {
  return {
    async events(host, before, limit) {
      let query = db.selectFrom('report_events').selectAll().where('host_id', '=', host);
      if (before !== null)
        query = query.where((eb) =>
          eb.or([
            eb('seq', '<', before.seq),
            eb.and([eb('seq', '=', before.seq), eb('ordinal', '<', before.ordinal)]),
          ]),
        );
      const rows = await query
        .orderBy('seq', 'desc')
        .orderBy('ordinal', 'desc')
        .limit(limit)
        .execute();
      return rows.map(eventOf);
    },
    async report(host, seq) {
      const row = await db
        .selectFrom('reports')
        .selectAll()
        .where('host_id', '=', host)
        .where('seq', '=', seq)
        .executeTakeFirst();
      if (row === undefined) return null;
      const { digest, envelope, received_at_ms } = row;
      return { host, seq, digest, envelope, receivedAtMs: received_at_ms };
    },
    auditAfter: (after, limit, subject) => auditAfter(db, after, limit, subject),
    logSize: () => logSize(db),
    logTile: (tile) => tileHashes(db, tile),
    async joinTokens() {
      const rows = await db
        .selectFrom('join_tokens')
        .selectAll()
        .orderBy('created_at_ms', 'desc')
        .limit(1000)
        .execute();
      return rows.map(joinTokenOf);
    },
    async trustFile(path) {
      const row = await db
        .selectFrom('trust_files')
        .select('content')
        .where('path', '=', path)
        .executeTakeFirst();
      return row?.content ?? null;
    },
    async trustFiles() {
      const rows = await db.selectFrom('trust_files').selectAll().execute();
      return new Map(rows.map((row) => [row.path, row.content]));
    },
  };
}

/** Errors of the database become E_UNAVAILABLE, problems and bugs pass (F72). */
async function guarded<T>(what: string, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (cause) {
    const code = cause instanceof Error && 'code' in cause ? String(cause.code) : '';
    if (!code.startsWith('ERR_SQLITE') && code !== 'ERR_INVALID_STATE') throw cause;
    const message = cause instanceof Error ? cause.message : String(cause);
    throw new Problem('E_UNAVAILABLE', `${what}: ${message}`, {}, { cause });
  }
}

/** The store over an open database whose tables are there. */
export function createStore(db: Db): Store {
  return {
    ...rolloutReads(db),
    ...evidenceReads(db),
    load: () =>
      guarded('load the store', async () => {
        await db
          .transaction()
          .execute((tx) => fillLog(tx, (id, limit) => auditAfter(tx, id, limit, null)));
        return load(db);
      }),
    write: (work) =>
      guarded('write to the store', () => db.transaction().execute((tx) => work(createWriter(tx)))),
    saveSeen: (seen) =>
      guarded('write last-seen times', () =>
        db.transaction().execute(async (tx) => {
          for (const [host_id, last_seen_at_ms] of seen)
            await tx
              .insertInto('host_seen')
              .columns(['host_id', 'last_seen_at_ms'])
              // From hosts, so that a host that was forgotten in between is passed over.
              .expression((eb) =>
                eb
                  .selectFrom('hosts')
                  .select((s) => ['id as host_id', s.val(last_seen_at_ms).as('last_seen_at_ms')])
                  .where('id', '=', host_id),
              )
              .onConflict((oc) => oc.column('host_id').doUpdateSet({ last_seen_at_ms }))
              .execute();
        }),
      ),
    prune: (beforeMs) =>
      guarded('prune the store', () =>
        db.transaction().execute(async (tx) => {
          await tx.deleteFrom('report_events').where('received_at_ms', '<', beforeMs).execute();
          // The newest report of each host stays: its number and digest tell a repeated report from a clone.
          await tx
            .deleteFrom('reports')
            .where('received_at_ms', '<', beforeMs)
            .where('seq', '<', (eb) =>
              eb.selectFrom('hosts').select('seq').whereRef('hosts.id', '=', 'reports.host_id'),
            )
            .execute();
        }),
      ),
    check: () =>
      guarded('check the store', async () => {
        const value = 'checked';
        await db
          .insertInto('meta')
          .values({ name: 'check', value })
          .onConflict((oc) => oc.column('name').doUpdateSet({ value }))
          .execute();
      }),
    close: () => db.destroy(),
  };
}
