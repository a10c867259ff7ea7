/** The event stream of control: parsed, checked, and taken up again where it broke. */
import * as v from 'valibot';
import type { CliContext } from '#/control/cli/context.ts';
import type { Client } from '#/protocol/client.ts';
import { isProblem, Problem } from '#/protocol/errors.ts';
import { type AuditEntry, auditEntry } from '#/protocol/operator-plane.ts';

const LINE_MAX_BYTES = 1024 * 1024;
const BACKOFF_FIRST_MS = 500;
const BACKOFF_MAX_MS = 15_000;
/** Broken connections in a row, without an event between them, before the command gives up. */
const BREAKS_MAX = 20;

/** Messages of a server-sent event stream (the `data:` of each), per the HTML standard's parsing rules. */
export async function* messagesOf(
  chunks: AsyncIterable<Uint8Array>,
): AsyncGenerator<string, void, undefined> {
  const decoder = new TextDecoder();
  let rest = '';
  let data: string[] = [];
  for await (const chunk of chunks) {
    rest += decoder.decode(chunk, { stream: true });
    if (rest.length > LINE_MAX_BYTES) {
      throw new Problem('E_TOOBIG', `a line of the event stream is over ${LINE_MAX_BYTES} bytes`);
    }
    const lines = rest.split(/\r\n|\n|\r(?!$)/);
    rest = lines.pop() ?? '';
    for (const line of lines) {
      if (line === '') {
        if (data.length > 0) yield data.join('\n');
        data = [];
      } else if (line.startsWith('data:')) data.push(line.slice(5).replace(/^ /, ''));
    }
  }
}

/** Events after `after` (absent: from now on), across restarts of control, until the operator ends it. */
export async function* readEvents(
  client: Client,
  context: CliContext,
  after: number | undefined,
): AsyncGenerator<AuditEntry, void, undefined> {
  let last = after;
  let breaks = 0;
  while (!context.signal.aborted) {
    try {
      const query = last === undefined ? {} : { after: String(last) };
      const stream = await client.call('events', { query });
      for await (const message of messagesOf(stream)) {
        const parsed = v.safeParse(auditEntry, JSON.parse(message));
        if (!parsed.success)
          throw new Problem('E_HTTP', `unexpected event: ${message.slice(0, 200)}`);
        last = parsed.output.id;
        breaks = 0;
        yield parsed.output;
      }
    } catch (error) {
      if (context.signal.aborted) return;
      if (!isProblem(error) || error.kind !== 'unavailable' || breaks >= BREAKS_MAX) throw error;
    }
    if (context.signal.aborted) return;
    breaks += 1;
    await context.sleep(Math.min(BACKOFF_FIRST_MS * 2 ** (breaks - 1), BACKOFF_MAX_MS));
  }
}
