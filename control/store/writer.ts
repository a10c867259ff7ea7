/** The writing half of the store: every method runs in the transaction it was made for. */
import type { Transaction } from 'kysely';
import type { AuditEntry } from '#/protocol/operator-plane.ts';
import { appendToLog, fitting, logSize, tileHashes } from './log.ts';
import type { StoreWriter } from './port.ts';
import {
  attemptRow,
  groupRow,
  hostRow,
  joinTokenOf,
  pinRow,
  releaseRow,
  rolloutRow,
} from './rows.ts';
import type { Tables } from './schema.ts';

async function nextId(tx: Transaction<Tables>, table: 'audit' | 'decisions'): Promise<number> {
  const row = await tx
    .selectFrom(table)
    .select((eb) => eb.fn.max('id').as('last'))
    .executeTakeFirst();
  return Number(row?.last ?? 0) + 1;
}

function fleetWriter(
  tx: Transaction<Tables>,
): Pick<
  StoreWriter,
  | 'setMeta'
  | 'putGroup'
  | 'deleteGroup'
  | 'putRelease'
  | 'putHost'
  | 'deleteHost'
  | 'putHalt'
  | 'deleteHalt'
> {
  return {
    async setMeta(name, value) {
      await tx
        .insertInto('meta')
        .values({ name, value })
        .onConflict((oc) => oc.column('name').doUpdateSet({ value }))
        .execute();
    },
    async putGroup(group) {
      const row = groupRow(group);
      await tx
        .insertInto('fleet_groups')
        .values(row)
        .onConflict((oc) => oc.column('name').doUpdateSet(row))
        .execute();
    },
    async deleteGroup(name) {
      await tx.deleteFrom('fleet_groups').where('name', '=', name).execute();
    },
    async putRelease(release) {
      const row = releaseRow(release);
      await tx
        .insertInto('releases')
        .values(row)
        .onConflict((oc) => oc.column('artifact_id').doUpdateSet(row))
        .execute();
    },
    async putHost(host) {
      const row = hostRow(host);
      await tx
        .insertInto('hosts')
        .values(row)
        .onConflict((oc) => oc.column('id').doUpdateSet(row))
        .execute();
    },
    async deleteHost(id) {
      await tx.deleteFrom('hosts').where('id', '=', id).execute();
    },
    async putHalt(halt) {
      const row = { scope: halt.scope, reason: halt.reason, actor: halt.actor, at_ms: halt.atMs };
      await tx
        .insertInto('halts')
        .values(row)
        .onConflict((oc) => oc.column('scope').doUpdateSet(row))
        .execute();
    },
    async deleteHalt(scope) {
      await tx.deleteFrom('halts').where('scope', '=', scope).execute();
    },
  };
}

function rolloutWriter(
  tx: Transaction<Tables>,
): Pick<StoreWriter, 'addPin' | 'removePin' | 'putRollout' | 'putAttempt' | 'addDecision'> {
  return {
    async addPin(pin) {
      await tx.insertInto('pins').values(pinRow(pin)).execute();
    },
    async removePin(group, host, atMs) {
      await tx
        .updateTable('pins')
        .set({ removed_at_ms: atMs })
        .where('group_name', '=', group)
        .where('host_id', host === null ? 'is' : '=', host)
        .where('removed_at_ms', 'is', null)
        .execute();
    },
    async putRollout(rollout) {
      const row = rolloutRow(rollout);
      await tx
        .insertInto('rollouts')
        .values(row)
        .onConflict((oc) => oc.column('id').doUpdateSet(row))
        .execute();
    },
    async putAttempt(attempt) {
      const row = attemptRow(attempt);
      await tx
        .insertInto('attempts')
        .values(row)
        .onConflict((oc) => oc.columns(['host_id', 'n']).doUpdateSet(row))
        .execute();
    },
    async addDecision(rollout, decision) {
      await tx
        .insertInto('decisions')
        .values({
          id: await nextId(tx, 'decisions'),
          rollout_id: rollout,
          at_ms: decision.atMs,
          kind: decision.kind,
          host_id: decision.host,
          stage: decision.stage,
          words: decision.words,
        })
        .execute();
    },
  };
}

function tokenWriter(
  tx: Transaction<Tables>,
): Pick<
  StoreWriter,
  'addJoinToken' | 'joinTokenByHash' | 'markJoinTokenUsed' | 'deleteJoinToken' | 'putApiToken'
> {
  return {
    async addJoinToken(token) {
      await tx
        .insertInto('join_tokens')
        .values({
          id: token.id,
          hash: token.hash,
          group_name: token.group,
          labels: JSON.stringify(token.labels),
          description: token.description,
          replaces_host: token.replacesHost,
          created_at_ms: token.createdAtMs,
          expires_at_ms: token.expiresAtMs,
          used_at_ms: token.usedAtMs,
          used_by: token.usedBy,
          actor: token.actor,
        })
        .execute();
    },
    async joinTokenByHash(hash) {
      const row = await tx
        .selectFrom('join_tokens')
        .selectAll()
        .where('hash', '=', hash)
        .executeTakeFirst();
      return row === undefined ? null : joinTokenOf(row);
    },
    async markJoinTokenUsed(id, host, atMs) {
      await tx
        .updateTable('join_tokens')
        .set({ used_at_ms: atMs, used_by: host })
        .where('id', '=', id)
        .execute();
    },
    async deleteJoinToken(id) {
      const result = await tx
        .deleteFrom('join_tokens')
        .where('id', '=', id)
        .where('used_at_ms', 'is', null)
        .executeTakeFirst();
      return Number(result.numDeletedRows) === 1;
    },
    async putApiToken(token) {
      const row = {
        id: token.id,
        hash: token.hash,
        name: token.name,
        role: token.role,
        created_at_ms: token.createdAtMs,
        expires_at_ms: token.expiresAtMs,
        revoked_at_ms: token.revokedAtMs,
        groups: token.groups === null ? null : JSON.stringify(token.groups),
      };
      await tx
        .insertInto('api_tokens')
        .values(row)
        .onConflict((oc) => oc.column('id').doUpdateSet(row))
        .execute();
    },
  };
}

function evidenceWriter(
  tx: Transaction<Tables>,
): Pick<
  StoreWriter,
  | 'reportDigest'
  | 'addReport'
  | 'addNewEvents'
  | 'audit'
  | 'logSize'
  | 'logTile'
  | 'putTrustFile'
  | 'deleteTrustFile'
> {
  return {
    async reportDigest(host, seq) {
      const row = await tx
        .selectFrom('reports')
        .select('digest')
        .where('host_id', '=', host)
        .where('seq', '=', seq)
        .executeTakeFirst();
      return row?.digest ?? null;
    },
    async addReport(report) {
      await tx
        .insertInto('reports')
        .values({
          host_id: report.host,
          seq: report.seq,
          digest: report.digest,
          envelope: report.envelope,
          received_at_ms: report.receivedAtMs,
        })
        .execute();
    },
    async addNewEvents(host, seq, events, atMs) {
      const fresh = [];
      for (const [ordinal, event] of events.entries()) {
        const result = await tx
          .insertInto('report_events')
          .values({
            host_id: host,
            event_id: event.id,
            seq,
            ordinal,
            attempt: event.attempt,
            rollout_id: event.rolloutId,
            artifact_id: event.artifactId,
            phase: event.phase,
            code: event.code,
            message: event.message,
            host_at_ms: event.at,
            received_at_ms: atMs,
            evidence: JSON.stringify(event.evidence),
          })
          .onConflict((oc) => oc.columns(['host_id', 'event_id']).doNothing())
          .executeTakeFirst();
        if (Number(result.numInsertedOrUpdatedRows ?? 0) > 0) fresh.push(event);
      }
      return fresh;
    },
    async audit(entry) {
      // As it will be read again: the leaf is made of what is stored.
      const details = JSON.stringify(entry.details);
      const full = fitting({
        ...entry,
        id: await nextId(tx, 'audit'),
        details: JSON.parse(details) as AuditEntry['details'],
      });
      await tx
        .insertInto('audit')
        .values({
          id: full.id,
          at_ms: full.atMs,
          actor: full.actor,
          type: full.type,
          subject: full.subject,
          details: JSON.stringify(full.details),
        })
        .execute();
      await appendToLog(tx, full);
      return full;
    },
    logSize: () => logSize(tx),
    logTile: (tile) => tileHashes(tx, tile),
    async putTrustFile(path, content) {
      await tx
        .insertInto('trust_files')
        .values({ path, content })
        .onConflict((oc) => oc.column('path').doUpdateSet({ content }))
        .execute();
    },
    async deleteTrustFile(path) {
      await tx.deleteFrom('trust_files').where('path', '=', path).execute();
    },
  };
}

/** A writer over one transaction. */
export function createWriter(tx: Transaction<Tables>): StoreWriter {
  return { ...fleetWriter(tx), ...rolloutWriter(tx), ...tokenWriter(tx), ...evidenceWriter(tx) };
}
