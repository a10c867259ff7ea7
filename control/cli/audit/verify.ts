/** `switchback audit verify`: an exported log, checked offline. docs/specs/audit-log.md. */
import { open } from 'node:fs/promises';
import { join } from 'node:path';
import { CHECKPOINT_MAX_BYTES, type LogIdentity, openCheckpoint } from '#/bundle/log/checkpoint.ts';
import { ENTRY_BUNDLE_MAX_BYTES, unpackEntries } from '#/bundle/log/entry.ts';
import { TILE_MAX_BYTES, tilePath } from '#/bundle/log/tiles.ts';
import {
  checkOutcome,
  checkWitness,
  type LogCopy,
  requireBeginning,
  rootText,
  verifyLog,
} from '#/bundle/log/verify.ts';
import { isProblem, Problem } from '#/protocol/errors.ts';

export interface VerifyResult {
  readonly origin: string;
  readonly size: number;
  readonly root: string;
  /** Hosts whose newest report saw a beginning of this log. */
  readonly witnesses: number;
  /** Entries that carry a host's own report and do not contradict it. */
  readonly outcomes: number;
}

const REPORTS_MAX_BYTES = 512 * 1024 * 1024;

/** Checks the export in `dir`. `since`: text of a checkpoint that was kept from earlier. @throws Problem E_LOG */
export async function verifyExport(
  dir: string,
  log: LogIdentity,
  since: string | null,
): Promise<VerifyResult> {
  const copy: LogCopy = {
    checkpoint: (await read(join(dir, 'checkpoint'), CHECKPOINT_MAX_BYTES)).toString('utf8'),
    hashes: (tile) => read(join(dir, tilePath(tile)), TILE_MAX_BYTES),
    entries: async (tile) =>
      unpackEntries(await read(join(dir, tilePath(tile, 'entries')), ENTRY_BUNDLE_MAX_BYTES)),
  };
  const verified = await verifyLog(copy, log);
  if (since !== null) requireBeginning(verified, openCheckpoint(since, log), 'the kept checkpoint');
  const witnesses = new Set<string>();
  const reports = await read(join(dir, 'reports.jsonl'), REPORTS_MAX_BYTES);
  for (const line of reports.toString('utf8').split('\n')) {
    const host = line === '' ? null : checkWitness(verified, log, line);
    if (host !== null) witnesses.add(host);
  }
  for (const entry of verified.reported) {
    checkOutcome(verified, entry);
    const host = checkWitness(verified, log, String(entry.details['report']));
    if (host !== null) witnesses.add(host);
  }
  return {
    origin: log.origin,
    size: verified.head.size,
    root: rootText(verified.head),
    witnesses: witnesses.size,
    outcomes: verified.reported.length,
  };
}

/** A file of the export. @throws Problem E_LOG when it is missing or larger than such a file can be */
export async function read(path: string, maxBytes: number): Promise<Buffer> {
  try {
    const file = await open(path, 'r');
    try {
      const { size } = await file.stat();
      if (size > maxBytes) throw new Problem('E_LOG', `${path} has ${size} bytes`);
      return await file.readFile();
    } finally {
      await file.close();
    }
  } catch (cause) {
    if (isProblem(cause)) throw cause;
    throw new Problem('E_LOG', `the export has no ${path}`, { path }, { cause });
  }
}
