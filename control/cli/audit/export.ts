/** A copy of the audit log in a directory: the layout of C2SP tlog-tiles, and what hosts saw of the log. docs/specs/audit-log.md. */
import { mkdir, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { entryBytes, packEntries } from '#/bundle/log/entry.ts';
import { TILE_WIDTH, tilePath, tilesOf } from '#/bundle/log/tiles.ts';
import type { Client } from '#/protocol/client.ts';
import { Problem } from '#/protocol/errors.ts';
import { collect } from './collect.ts';

export interface ExportResult {
  readonly size: number;
  readonly reports: number;
}

const PAGE = 1000;

/** Writes the log as control serves it now into `dir`, which must be new or empty of an export. */
export async function exportLog(client: Client, dir: string): Promise<ExportResult> {
  const checkpoint = await collect(
    await client.call('trustLog', { params: { rest: 'checkpoint' } }),
  );
  const size = Number(Buffer.from(checkpoint).toString('utf8').split('\n')[1]);
  if (!Number.isSafeInteger(size)) throw new Problem('E_LOG', 'control serves no checkpoint');
  await write(join(dir, 'checkpoint'), checkpoint);
  const entries = entriesOf(client, size);
  for (const tile of tilesOf(size)) {
    const rest = tilePath(tile);
    await write(
      join(dir, rest),
      await collect(await client.call('trustLog', { params: { rest } })),
    );
    if (tile.level > 0) continue;
    const bundle: Uint8Array[] = [];
    while (bundle.length < tile.width) {
      const next = await entries.next();
      if (next.done === true) {
        throw lacks(tile.index * TILE_WIDTH + bundle.length, size);
      }
      bundle.push(next.value);
    }
    await write(join(dir, tilePath(tile, 'entries')), packEntries(bundle));
  }
  const reports = await reportsOf(client);
  await write(join(dir, 'reports.jsonl'), Buffer.from(reports.map((line) => `${line}\n`).join('')));
  return { size, reports: reports.length };
}

function lacks(index: number, size: number): Problem {
  return new Problem('E_LOG', `control has no entry ${index} of ${size}`, { index });
}

async function* entriesOf(client: Client, size: number): AsyncGenerator<Uint8Array> {
  for (let after = 0; after < size; ) {
    const query = { after: String(after), limit: String(PAGE) };
    const { items } = await client.call('audit', { query });
    if (items.length === 0) return;
    for (const item of items) {
      if (item.id !== after + 1) throw lacks(after, size);
      yield entryBytes(item);
      after = item.id;
    }
  }
}

/** The newest signed report of each host, one envelope a line. */
async function reportsOf(client: Client): Promise<readonly string[]> {
  const lines: string[] = [];
  for (let cursor: string | null = ''; cursor !== null; ) {
    const query: { cursor?: string } = cursor === '' ? {} : { cursor };
    const page: { items: readonly { envelope: string }[]; nextCursor: string | null } =
      await client.call('auditReports', { query });
    lines.push(...page.items.map((item) => item.envelope));
    cursor = page.nextCursor;
  }
  return lines;
}

async function write(path: string, bytes: Uint8Array): Promise<void> {
  await mkdir(dirname(path), { recursive: true });
  await writeFile(path, bytes, { flag: 'wx' }).catch((cause: unknown) => {
    throw new Problem('E_CONFLICT', `cannot write ${path}`, { path }, { cause });
  });
}
