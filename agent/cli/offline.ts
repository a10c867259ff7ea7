/** What the files of a host say when no agent runs: read, never written. */
import { join } from 'node:path';
import { parseState } from '#/agent/core/state.ts';
import type { Settings } from '#/agent/config.ts';
import { parseJournal } from '#/agent/adapters/journal.ts';
import { readFile } from '#/agent/adapters/durable.ts';
import { nodeFiles } from '#/agent/adapters/file-port.ts';
import { ticketFile } from '#/agent/adapters/ticket.ts';
import type { JournalEntry } from '#/agent/ports.ts';

const JOURNAL_MAX_BYTES = 64 * 1024 * 1024;

/** The newest transitions, oldest first. */
export async function readHistory(
  settings: Settings,
  count: number,
): Promise<readonly JournalEntry[]> {
  const path = join(settings.state.directory, 'journal');
  const bytes = (await readFile(nodeFiles(), path, JOURNAL_MAX_BYTES)) ?? new Uint8Array();
  return parseJournal(bytes)
    .records.slice(-count)
    .map(
      ({ bootId, monotonicMs, wallMs, data }) =>
        ({ bootId, monotonicMs, wallMs, ...(data as object) }) as JournalEntry,
    );
}

/** What the journal and the ticket say of the last state. */
export async function readLastState(settings: Settings): Promise<readonly string[]> {
  const sentences = ['No agent runs; this is what it wrote last.'];
  const [last] = await readHistory(settings, 1);
  const state = last === undefined ? null : parseState(last.state);
  if (last === undefined || state === null) sentences.push('There is no journal.');
  else {
    sentences.push(
      `At ${new Date(last.wallMs).toISOString()} it went from ${last.from} to ${last.to}.`,
    );
    if ('reason' in state) sentences.push(`${state.reason.code}: ${state.reason.message}.`);
    if (state.modes.paused) sentences.push('The operator of this host paused it.');
  }
  const ticket = await ticketFile(nodeFiles(), join(settings.state.directory, 'ticket')).read();
  if (ticket === 'damaged') sentences.push('The ticket of a trial is there, but damaged.');
  else if (ticket !== null)
    sentences.push(
      `A ticket is ${ticket.state}: ${ticket.version} on trial, ${ticket.bootsUsed} of ${ticket.maxBoots} boots used; the guard watches it.`,
    );
  return sentences;
}
