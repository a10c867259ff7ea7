/** From what people type to the id that control wants: whole ids, the start of one, or a name that is unique. */
import type { Client } from '#/protocol/client.ts';
import type { ConfigView } from '#/protocol/config-set.ts';
import { Problem } from '#/protocol/errors.ts';
import type { HostView } from '#/protocol/host.ts';
import type { ReleaseView } from '#/protocol/release.ts';

/** Pages that are read to find a thing by the start of its id; beyond that the whole id is needed. */
const PAGES_MAX = 200;
const PREFIX_MIN = 4;

/** Every item of a list, page by page, at most `PAGES_MAX` pages. */
export async function* everyPage<Item>(
  read: (cursor: string | undefined) => Promise<{
    readonly items: readonly Item[];
    readonly nextCursor: string | null;
  }>,
): AsyncGenerator<Item, void, undefined> {
  let cursor: string | undefined;
  for (let page = 0; page < PAGES_MAX; page += 1) {
    const answer = await read(cursor);
    yield* answer.items;
    if (answer.nextCursor === null) return;
    cursor = answer.nextCursor;
  }
  throw new Problem('E_TOOBIG', `the list has more than ${PAGES_MAX} pages: narrow it down`);
}

/** `list` with all pages, as an array. */
export async function all<Item>(items: AsyncIterable<Item>): Promise<readonly Item[]> {
  const found: Item[] = [];
  for await (const item of items) found.push(item);
  return found;
}

export function hosts(
  client: Client,
  query: {
    readonly group?: string;
    readonly selector?: string;
    readonly condition?: HostView['condition'];
  },
): AsyncGenerator<HostView, void, undefined> {
  return everyPage((cursor) =>
    client.call('hostList', {
      query: { ...query, ...(cursor === undefined ? {} : { cursor }), limit: '1000' },
    }),
  );
}

export function releases(client: Client): AsyncGenerator<ReleaseView, void, undefined> {
  return everyPage((cursor) =>
    client.call('releaseList', {
      query: { ...(cursor === undefined ? {} : { cursor }), limit: '500' },
    }),
  );
}

/** The id of the host that `text` means: its id, the unique start of one, or its label `name`. */
export async function findHost(client: Client, text: string): Promise<string> {
  if (/^h-[0-9a-f]{32}$/.test(text)) return text;
  const start = text.startsWith('h-') ? text : `h-${text}`;
  const isStart = /^h-[0-9a-f]*$/.test(start) && start.length >= PREFIX_MIN + 2;
  const found: string[] = [];
  for await (const host of hosts(client, {})) {
    if (host.labels['name'] === text || (isStart && host.id.startsWith(start))) found.push(host.id);
  }
  return onlyOne(found, text, 'host', (id) => id);
}

/** The release that `text` means: artifact id or its unique start, `class/version`, or a version that is unique. */
export async function findRelease(client: Client, text: string): Promise<ReleaseView> {
  if (/^[0-9a-f]{64}$/.test(text))
    return client.call('releaseShow', { params: { artifact: text } });
  const found: ReleaseView[] = [];
  const isPrefix = /^[0-9a-f]+$/.test(text) && text.length >= PREFIX_MIN;
  for await (const release of releases(client)) {
    const names = [release.version, `${release.class}/${release.version}`];
    if (names.includes(text) || (isPrefix && release.artifactId.startsWith(text)))
      found.push(release);
  }
  return onlyOne(
    found,
    text,
    'release',
    (release) => `${release.class}/${release.version} ${release.artifactId.slice(0, 12)}`,
  );
}

/** The config set that `text` means: its id or the unique start of it, or `scope/version`. */
export async function findConfig(client: Client, text: string): Promise<ConfigView> {
  const { items } = await client.call('configList', {});
  const isPrefix = /^[0-9a-f]+$/.test(text) && text.length >= PREFIX_MIN;
  const found = items.filter(
    ({ configId, scope, version }) =>
      `${scope}/${version}` === text || (isPrefix && configId.startsWith(text)),
  );
  return onlyOne(
    found,
    text,
    'config set',
    ({ configId, scope, version }) => `${scope}/${version} ${configId.slice(0, 12)}`,
  );
}

/** The id of a rollout: itself, or the one that runs in the group of that name, or else its newest. */
export async function findRollout(client: Client, text: string): Promise<string> {
  if (/^r-[0-9a-f]{16}$/.test(text)) return text;
  const group = await client.call('groupShow', { params: { group: text } });
  if (group.activeRollout !== null) return group.activeRollout;
  const newest = await client.call('rolloutList', { query: { group: text, limit: '1' } });
  const rollout = newest.items[0];
  if (rollout === undefined)
    throw new Problem('E_NOT_FOUND', `group ${text} has had no rollout yet`);
  return rollout.id;
}

function onlyOne<Item>(
  found: readonly Item[],
  text: string,
  kind: string,
  show: (item: Item) => string,
): Item {
  const first = found[0];
  if (first === undefined) throw new Problem('E_NOT_FOUND', `no ${kind} '${text}'`);
  if (found.length > 1) {
    const few = found.slice(0, 5).map(show).join(', ');
    throw new Problem('E_USAGE', `'${text}' means ${found.length} ${kind}s: ${few}`);
  }
  return first;
}
