/** Reports, as they come in: verified before this, counted once here. And what tells that something is wrong with an identity. */
import type { Host } from '#/control/core/model.ts';
import {
  applyReport,
  bootVerdict,
  refuseSequence,
  sequenceVerdict,
} from '#/control/core/report.ts';
import { outrun, outrunning } from '#/control/trust/outrun.ts';
import type { ReportDocument } from '#/protocol/documents.ts';
import { Problem } from '#/protocol/errors.ts';
import type { HostId } from '#/protocol/ids.ts';
import { type Desk, repositoryOf } from './desk.ts';
import type { Draft } from './draft.ts';
import { compareSeenLog, renewLog } from './log.ts';

export interface SignedReport {
  readonly report: ReportDocument;
  /** sha256 of the payload. */
  readonly digest: string;
  /** The envelope as JSON text: the evidence. */
  readonly envelope: string;
}

/** The host's own signed words stand in the log when they are not longer than this. */
const ENVELOPE_IN_LOG_MAX = 24 * 1024;

export interface Received {
  readonly host: Host;
  readonly isRepeated: boolean;
}

type Taken = Received | { readonly refused: 'rewound' | 'forked'; readonly host: Host };

/** Takes a report. @throws E_REPORT_SEQUENCE (send a full one after `lastSeq`), E_FORKED, E_UNAVAILABLE */
export async function receiveReport(desk: Desk, signed: SignedReport): Promise<Received> {
  const taken = await desk.engine.change((draft) => take(desk, draft, signed));
  if ('refused' in taken) refuseSequence(taken.host, signed.report, taken.refused);
  return taken;
}

async function take(desk: Desk, draft: Draft, signed: SignedReport): Promise<Taken> {
  const { report } = signed;
  const host = draft.host(report.host);
  if (host.quarantine !== null)
    throw new Problem('E_FORKED', `host ${host.id} is quarantined: ${host.quarantine.reason}`);
  const stored = await draft.writer.reportDigest(host.id, report.seq);
  const verdict = sequenceVerdict(host, report, signed.digest, stored);
  if (verdict === 'repeated') return { host, isRepeated: true };
  if (verdict === 'forked') {
    const reason = `report ${report.seq} of boot ${report.bootId} after ${host.seq} of boot ${host.bootId ?? '-'}`;
    return { refused: 'forked', host: await quarantine(draft, host, reason) };
  }
  if (verdict === 'rewound') {
    const next = { ...host, rewinds: host.rewinds + 1 };
    await draft.putHost(next);
    await draft.audit(`host/${host.id}`, 'host.rewound', `host/${host.id}`, {
      seq: report.seq,
      lastSeq: host.seq,
      bootId: report.bootId,
    });
    return { refused: 'rewound', host: next };
  }
  await draft.writer.addReport({
    host: host.id,
    seq: report.seq,
    digest: signed.digest,
    envelope: signed.envelope,
    receivedAtMs: draft.now,
  });
  const fresh = await draft.writer.addNewEvents(host.id, report.seq, report.events, draft.now);
  const change = applyReport(host, report, fresh, verdict, draft.fleet.epoch, draft.now);
  const isPlanned = draft.dirty.has(host.group);
  await draft.putHost(change.host);
  // Progress inside an attempt changes no decision: a large group is not planned anew for it. Overdue ones are seen by the clock.
  const isNews =
    change.ended.length > 0 ||
    change.host.running !== host.running ||
    change.host.observedEpoch !== host.observedEpoch ||
    change.host.denied.length !== host.denied.length;
  if (!isNews && !isPlanned) draft.dirty.delete(host.group);
  for (const attempt of change.attempts) await draft.putAttempt(attempt);
  for (const attempt of change.ended)
    await draft.audit(`host/${host.id}`, `attempt.${attempt.outcome}`, `host/${host.id}`, {
      artifactId: attempt.artifactId,
      rolloutId: attempt.rolloutId,
      phase: attempt.phase,
      code: attempt.code,
      message: attempt.message,
      seq: report.seq,
      digest: signed.digest,
      ...(signed.envelope.length > ENVELOPE_IN_LOG_MAX ? {} : { report: signed.envelope }),
    });
  await compareSeenLog(desk, draft, report, signed.digest);
  return { host: change.host, isRepeated: false };
}

async function quarantine(draft: Draft, host: Host, reason: string): Promise<Host> {
  const next: Host = {
    ...host,
    quarantine: { reason: `two machines on one identity: ${reason}`, atMs: draft.now },
  };
  await draft.putHost(next);
  await draft.audit('control', 'host.forked', `host/${host.id}`, { reason });
  return next;
}

/** Two machines on one identity, seen outside of a report (F75): neither takes part until it is enrolled anew. */
export function quarantineHost(desk: Desk, id: HostId, reason: string): Promise<Host> {
  return desk.engine.change(async (draft) => {
    const host = draft.host(id);
    return host.quarantine === null ? quarantine(draft, host, reason) : host;
  });
}

/** True when this boot id belongs to a machine that was superseded. */
export function isForkedBoot(host: Host, bootId: string): boolean {
  return bootVerdict(host, bootId) === 'forked';
}

/** A host showed an epoch or a generation from our future: this store is older than what hosts were told (F73). */
export function raiseEpoch(
  desk: Desk,
  seen: { readonly epoch: number; readonly host: HostId },
): Promise<number> {
  return desk.engine.change(async (draft) => {
    const epoch = Math.max(draft.fleet.epoch, seen.epoch) + 1;
    await draft.raiseEpoch(epoch);
    await draft.raiseFleetGeneration();
    await draft.audit('control', 'epoch.raise', 'fleet', { epoch, seenBy: seen.host });
    // Hosts have seen newer metadata and pins than this store has: what follows has to be above those.
    await draft.publish(outrun(repositoryOf(desk, draft)));
    const lowest = outrunning(draft.now);
    for (const group of [...draft.fleet.groups.values()])
      await draft.putGroup({ ...group, pinSeq: Math.max(group.pinSeq, lowest) }, true);
    await renewLog(desk, draft);
    return epoch;
  });
}
