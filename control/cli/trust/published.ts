/** The trust repository as control publishes it, for functions that read it synchronously. */
import type { RepositoryStore } from '#/control/trust/repository.ts';
import type { Client } from '#/protocol/client.ts';
import { isProblem, Problem } from '#/protocol/errors.ts';

/** A fleet of ten thousand groups has that many roles; more files than this are not a repository of ours. */
const FILES_MAX = 20_000;
const FILE_MAX_BYTES = 16 * 1024 * 1024;

/**
 * Runs `work` over what control publishes, again and again until every file that it asked for was fetched. It must have no
 * effect but its result. @throws what `work` throws when nothing is left to fetch; E_TOOBIG
 */
export async function overPublished<T>(
  client: Client,
  work: (store: RepositoryStore) => T,
): Promise<T> {
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
      const result = work(store);
      if (wanted.size === 0) return result;
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
