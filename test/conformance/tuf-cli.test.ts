/**
 * `agent tuf` against a repository over HTTP, in the ways in which the public tuf-conformance suite tries clients: commands,
 * exit codes, files in the metadata directory, and the order of requests.
 */
import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { runTufCli } from '#/agent/tuf-cli.ts';
import { dateText } from '#/bundle/trust/shape.ts';
import { DAY_MS, NOW_MS } from '#/test/support/trust-world.ts';
import {
  ecdsaSigner,
  edSigner,
  rsaSigner,
  type SimSigner,
  TufSimulator,
} from '#/test/support/tuf-simulator.ts';

let directory = '';
let server: Server;
let sim: TufSimulator;
let errors: string[] = [];

/** Signers of all kinds in turn, made once: RSA keys take time. */
const pool: readonly SimSigner[] = [
  ecdsaSigner(),
  rsaSigner('rsa-pkcs1v15-sha256'),
  rsaSigner('rsassa-pss-sha256'),
  edSigner(7),
  ...Array.from({ length: 20 }, () => ecdsaSigner()),
];

function freshSimulator(): TufSimulator {
  let next = 0;
  const simulator = new TufSimulator(() => {
    const signer = pool[next];
    next += 1;
    if (signer === undefined) throw new Error('out of keys');
    return signer;
  });
  simulator.digests = false;
  simulator.publish();
  return simulator;
}

beforeEach(async () => {
  directory = await mkdtemp(`${tmpdir()}/tuf-cli-`);
  sim = freshSimulator();
  errors = [];
  server = createServer((request, response) => {
    const name = (request.url ?? '').slice(1);
    sim.requests.push(name);
    const bytes = sim.files.get(name);
    response.writeHead(bytes === undefined ? 404 : 200).end(bytes ?? 'no such file');
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
});

afterEach(async () => {
  server.closeAllConnections();
  await new Promise((resolve) => server.close(resolve));
  await rm(directory, { recursive: true });
});

async function run(args: readonly string[], days = 0): Promise<number> {
  return runTufCli(args, {
    nowMs: () => NOW_MS + days * DAY_MS,
    printError: (line) => errors.push(line),
  });
}

function url(path: string): string {
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}/${path}`;
}

async function init(): Promise<number> {
  await writeFile(`${directory}/initial`, sim.files.get('metadata/1.root.json') ?? '');
  return run(['--metadata-dir', `${directory}/m`, 'init', `${directory}/initial`]);
}

async function refresh(days = 0, extra: readonly string[] = []): Promise<number> {
  const base = ['--metadata-url', url('metadata/'), '--metadata-dir', `${directory}/m`];
  return run([...base, ...extra, 'refresh'], days);
}

async function download(name: string): Promise<number> {
  const where = ['--metadata-url', url('metadata/'), '--metadata-dir', `${directory}/m`];
  const what = ['--target-name', name, '--target-base-url', url('targets/')];
  return run([...where, ...what, '--target-dir', `${directory}/t`, 'download']);
}

async function version(role: string): Promise<number> {
  const text = await readFile(`${directory}/m/${role}.json`, 'utf8');
  return (JSON.parse(text) as { signed: { version: number } }).signed.version;
}

async function downloaded(): Promise<string[]> {
  const names = await readdir(`${directory}/t`);
  return Promise.all(names.toSorted().map((name) => readFile(`${directory}/t/${name}`, 'utf8')));
}

describe('top-level metadata', () => {
  it('init and refresh leave plain file names with the bytes that were served', async () => {
    expect([await init(), await refresh()]).toEqual([0, 0]);
    expect(sim.takeRequests()).toEqual(['root 2', 'timestamp', 'snapshot 1', 'targets 1']);
    expect((await readdir(`${directory}/m`)).toSorted()).toEqual([
      'root.json',
      'snapshot.json',
      'targets.json',
      'timestamp.json',
    ]);
    const kept = await readFile(`${directory}/m/targets.json`);
    expect(kept.equals(sim.files.get('metadata/1.targets.json') ?? Buffer.alloc(0))).toBe(true);
  });

  it('a root without version fails and nothing is asked for', async () => {
    const root = JSON.parse(Buffer.from(sim.files.get('metadata/1.root.json')!).toString());
    delete root.signed.version;
    sim.files.set('metadata/1.root.json', Buffer.from(JSON.stringify(root)));
    expect([await init(), await refresh()]).toEqual([1, 1]);
    expect(sim.takeRequests()).toEqual([]);
  });

  it('with --key-types ed25519 signatures of other kinds do not count', async () => {
    await init();
    expect(await refresh(0, ['--key-types', 'ed25519'])).toBe(1);
    expect(errors.join()).toContain('E_SIGS');
  });

  it('a snapshot that only the timestamp does not list is not fetched again', async () => {
    await init();
    sim.bump();
    expect(await refresh()).toBe(0);
    sim.takeRequests();
    sim.snapshot.version = 1;
    expect(await refresh()).toBe(0);
    expect(sim.takeRequests().at(-1)).toBe('timestamp');
    expect(await version('snapshot')).toBe(2);
  });

  it.each([false, true])(
    'a timestamp that lists an older snapshot is not kept (digests %s)',
    async (digests) => {
      sim.digests = digests;
      await init();
      sim.bump();
      expect(await refresh()).toBe(0);
      sim.snapshot.version = 1;
      sim.publishSnapshot();
      sim.timestamp.version += 1;
      sim.publishTimestamp();
      expect(await refresh()).toBe(1);
      expect([await version('timestamp'), await version('snapshot')]).toEqual([2, 2]);
      expect(sim.takeRequests().at(-1)).toBe('timestamp');
    },
  );

  it.each(['timestamp', 'snapshot', 'targets'])('an expired %s is not kept', async (role) => {
    await init();
    expect(await refresh()).toBe(0);
    const documents = {
      timestamp: sim.timestamp,
      snapshot: sim.snapshot,
      targets: sim.role('targets'),
    };
    documents[role as 'timestamp'].expires = dateText(NOW_MS / 1000 - 5 * 86_400);
    sim.bump('targets');
    expect(await refresh()).toBe(1);
    expect(await version(role)).toBe(1);
  });

  it('an expired root is kept, and nothing after it', async () => {
    await init();
    expect(await refresh()).toBe(0);
    sim.bumpRoot(() => {
      sim.root.expires = dateText(NOW_MS / 1000 - 1);
    });
    sim.bump('targets');
    expect(await refresh()).toBe(1);
    expect([await version('root'), await version('timestamp')]).toEqual([2, 1]);
  });

  it('expired files of the cache are still the base for newer ones', async () => {
    await init();
    sim.timestamp.expires = dateText(NOW_MS / 1000 + 7 * 86_400);
    sim.publishTimestamp();
    expect(await refresh()).toBe(0);
    sim.timestamp.expires = dateText(NOW_MS / 1000 + 21 * 86_400);
    sim.bump('targets');
    expect(await refresh(18)).toBe(0);
    expect([await version('timestamp'), await version('targets')]).toEqual([2, 2]);
  });

  it('a fast-forwarded timestamp and snapshot are left behind after their keys were rotated', async () => {
    await init();
    sim.snapshot.version = 99_999;
    sim.timestamp.version = 99_999;
    sim.publish();
    expect(await refresh()).toBe(0);
    sim.bumpRoot(() => {
      sim.rotate('snapshot');
      sim.rotate('timestamp');
    });
    sim.snapshot.version = 1;
    sim.timestamp.version = 1;
    sim.publish();
    expect(await refresh()).toBe(0);
    expect([await version('timestamp'), await version('snapshot')]).toEqual([1, 1]);
  });

  it('fast-forwarded targets are left behind after the snapshot key was rotated', async () => {
    await init();
    sim.role('targets').version = 99;
    sim.bump('targets');
    expect(await refresh()).toBe(0);
    sim.bumpRoot(() => sim.rotate('snapshot'));
    sim.role('targets').version = 1;
    sim.bump('targets');
    expect(await refresh()).toBe(0);
    expect(await version('targets')).toBe(2);
  });

  it('unknown fields in root, keys and roles are signed and accepted', async () => {
    await init();
    sim.bumpRoot(() => {
      Object.assign(sim.root, { 'custom-field': 'value' });
      Object.assign(sim.root.roles['root'] ?? {}, { 'another-field': 'value' });
      for (const key of Object.values(sim.root.keys)) Object.assign(key, { extra: { a: 1 } });
    });
    expect(await refresh()).toBe(0);
    expect(await version('root')).toBe(2);
  });

  it('without consistent snapshots files are asked for by their plain names', async () => {
    sim.root.consistent_snapshot = false;
    sim.publishRoot();
    sim.addTarget('targets', 'a/file', 'content');
    sim.publish();
    expect([await init(), await download('a/file')]).toEqual([0, 0]);
    expect(sim.requests.at(-1)).toBe('targets/a/file');
    expect(sim.takeRequests()).toEqual(['root 2', 'timestamp', 'snapshot', 'targets']);
  });
});

describe('targets and delegations', () => {
  it('a target is downloaded once, and again when it changed', async () => {
    await init();
    sim.addTarget('targets', 'path/to/file', 'one');
    sim.bump('targets');
    expect([await download('path/to/file'), await download('path/to/file')]).toEqual([0, 0]);
    expect(sim.requests.filter((name) => name.startsWith('targets/')).length).toBe(1);
    sim.addTarget('targets', 'path/to/file', 'second');
    sim.bump('targets');
    expect(await download('path/to/file')).toBe(0);
    expect(await downloaded()).toEqual(['second']);
  });

  it('a target with other content than was signed is not kept', async () => {
    await init();
    sim.addTarget('targets', 'file', 'good');
    sim.bump('targets');
    for (const name of sim.files.keys()) {
      if (name.startsWith('targets/')) sim.files.set(name, Buffer.from('evil'));
    }
    expect(await download('file')).toBe(1);
    await expect(downloaded()).rejects.toThrow('ENOENT');
  });

  it.each(['?', '#', '/delegatedrole', '../delegatedrole'])(
    'role %s is asked for quoted, and kept in the directory',
    async (role) => {
      sim.delegate('targets', role, ['*']);
      sim.publish();
      await init();
      expect(await download('nonexistent')).toBe(1);
      expect(sim.takeRequests()).toContain(`${encodeURIComponent(role)} 1`);
      expect((await readdir(`${directory}/m`)).length).toBe(5);
      expect((await readdir(directory)).toSorted()).toEqual(['initial', 'm']);
    },
  );

  const graphs: Record<string, { edges: [string, string, string?, boolean?][]; order: string[] }> =
    {
      'depth first': {
        edges: [
          ['targets', 'A'],
          ['targets', 'B'],
          ['A', 'C'],
          ['A', 'D'],
        ],
        order: ['A', 'C', 'D', 'B'],
      },
      'a terminating role ends all but its own descendants': {
        edges: [
          ['targets', 'A'],
          ['targets', 'B'],
          ['A', 'C', '*', true],
          ['C', 'D'],
        ],
        order: ['A', 'C', 'D'],
      },
      'branches that do not match are left out': {
        edges: [
          ['targets', 'A'],
          ['targets', 'B'],
          ['A', 'C', '*.py'],
          ['C', 'D'],
        ],
        order: ['A', 'B'],
      },
      'a cycle is walked once': {
        edges: [
          ['targets', 'A'],
          ['targets', 'B'],
          ['B', 'C'],
          ['C', 'D'],
          ['D', 'B'],
        ],
        order: ['A', 'B', 'C', 'D'],
      },
      'two roles that delegate to a third': {
        edges: [
          ['targets', 'A'],
          ['targets', 'B'],
          ['B', 'C'],
          ['A', 'C'],
        ],
        order: ['A', 'C', 'B'],
      },
    };
  it.each(Object.entries(graphs))('%s', async (_name, { edges, order }) => {
    for (const [delegator, role, pattern = '*', terminating = false] of edges) {
      sim.delegate(delegator, role, [pattern], { terminating });
    }
    sim.publish();
    await init();
    expect(await download('missingpath')).toBe(1);
    expect(sim.takeRequests().slice(4)).toEqual(order.map((role) => `${role} 1`));
  });
});
