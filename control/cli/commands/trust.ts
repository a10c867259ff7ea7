/** `switchback trust status`: which keys sign what, until when, and what is not protected. Read from what control publishes. */
import { resolve } from 'node:path';
import type { CliContext } from '#/control/cli/context.ts';
import { addCommand, addFamily, type DescribedCommand } from '#/control/cli/describe.ts';
import { renderTable } from '#/control/cli/render/table.ts';
import { harmless } from '#/control/cli/render/text.ts';
import { openSession } from '#/control/cli/session.ts';
import { readKeyFile } from '#/control/trust/key-file.ts';
import type { HeldKey, RepositoryStore } from '#/control/trust/repository.ts';
import { type TrustOverview, trustStatus } from '#/control/trust/starter.ts';
import type { Client } from '#/protocol/client.ts';
import { isProblem, Problem } from '#/protocol/errors.ts';

/** A fleet of ten thousand groups has that many roles; more files than this are not a repository of ours. */
const FILES_MAX = 20_000;
const FILE_MAX_BYTES = 16 * 1024 * 1024;

export function addTrustCommands(program: DescribedCommand, context: CliContext): void {
  const family = addFamily(program, 'trust', 'Trust: which keys sign what.');
  const command = addCommand(
    family,
    'status',
    'Show roles, keys, expiry, and which protections are off.',
  );
  command
    .option(
      '--held <file>',
      'key file that control holds, to say what whoever takes it over could do',
    )
    .explain(
      ['switchback trust status', 'switchback trust status --held ~/fleet/keys.json'],
      '`{roles: [{role, threshold, keyIds, heldKeyIds, version, expires, hasExpired}], protectionsOff: [text]}`',
    )
    .action(async () => {
      const session = openSession(context, command);
      const { held } = command.opts<{ held?: string }>();
      const keys = held === undefined ? [] : await readKeyFile(resolve(context.cwd, held));
      const { client } = await session.connect();
      const overview = await overviewOf(client, keys, context.now());
      session.print(overview, ({ roles, protectionsOff }) => {
        const table = renderTable(
          roles,
          [
            { title: 'ROLE', value: (role) => role.role },
            { title: 'NEEDS', value: (role) => `${role.threshold} of ${role.keyIds.length}` },
            {
              title: 'HELD',
              value: (role) => (held === undefined ? '?' : String(role.heldKeyIds.length)),
            },
            { title: 'VERSION', value: (role) => String(role.version), align: 'right' },
            {
              title: 'EXPIRES',
              value: (role) => role.expires,
              tone: (role) => (role.hasExpired ? 'bad' : 'plain'),
            },
            {
              title: 'KEYS',
              value: (role) => role.keyIds.map((key) => key.slice(0, 12)).join(', '),
              flexible: true,
            },
          ],
          session.style,
          'no roles',
        );
        const off = protectionsOff.map(
          (text) => `  ${session.style.paint('warn', harmless(text))}\n`,
        );
        return `${table}\nnot protected:\n${off.length === 0 ? '  nothing\n' : off.join('')}`;
      });
    });
}

/**
 * The overview over what control publishes. The functions of the repository read synchronously, so they are tried until
 * every file that they asked for was fetched.
 */
async function overviewOf(
  client: Client,
  keys: readonly HeldKey[],
  nowMs: number,
): Promise<TrustOverview> {
  const files = new Map<string, Uint8Array | null>();
  for (;;) {
    const wanted = new Set<string>();
    const store: RepositoryStore = {
      read: (name) => {
        if (!files.has(name)) wanted.add(name);
        return files.get(name) ?? null;
      },
    };
    try {
      const overview = trustStatus({ store, keys, nowMs });
      if (wanted.size === 0) return overview;
    } catch (error) {
      if (wanted.size === 0) throw error;
    }
    if (files.size + wanted.size > FILES_MAX)
      throw new Problem('E_TOOBIG', 'too many metadata files');
    for (const name of wanted) files.set(name, await fetchFile(client, name));
  }
}

/** A published file by its name in the repository; null when control has none. */
async function fetchFile(client: Client, name: string): Promise<Uint8Array | null> {
  try {
    const body = name.startsWith('metadata/')
      ? await client.call('trustMetadata', { params: { file: name.slice('metadata/'.length) } })
      : await client.call('trustTarget', { params: { rest: name.slice('targets/'.length) } });
    const parts: Uint8Array[] = [];
    let sizeBytes = 0;
    for await (const part of body) {
      sizeBytes += part.byteLength;
      if (sizeBytes > FILE_MAX_BYTES)
        throw new Problem('E_TOOBIG', `${name} is over ${FILE_MAX_BYTES} bytes`);
      parts.push(part);
    }
    return Buffer.concat(parts);
  } catch (error) {
    if (isProblem(error, 'E_NOT_FOUND')) return null;
    throw error;
  }
}
