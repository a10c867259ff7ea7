/** The line to control: the typed client with the operator's token, over undici. */
import type { Connection } from '#/control/cli/settings.ts';
import { httpSend } from '#/control/cli/send.ts';
import { type Client, createClient } from '#/protocol/client.ts';

/** Verifying a bundle of many gigabytes happens before control answers an import. */
const IMPORT_TIMEOUT_MS = 30 * 60_000;

export interface Connected {
  readonly client: Client;
  /** The same with the patience that an import needs. */
  readonly patient: Client;
  readonly url: string;
}

export function connect(connection: Connection, signal: AbortSignal): Connected {
  const headers = { authorization: `Bearer ${connection.token}` };
  const { url } = connection;
  return {
    url,
    client: createClient(httpSend({ url, signal }), headers),
    patient: createClient(httpSend({ url, signal, headersTimeoutMs: IMPORT_TIMEOUT_MS }), headers),
  };
}
