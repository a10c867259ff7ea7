/**
 * Our client against tuf-js over generated and mutated repositories. What we accept and it refuses fails the test. What we
 * refuse and it accepts stands on the list below, with the reason.
 *
 *     SEED=123 RUNS=2000 vitest run --project conformance test/conformance/tuf-differential.test.ts
 */
import { createHash } from 'node:crypto';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { BaseFetcher, Updater } from 'tuf-js';
import { afterAll, beforeAll, expect, it, vi } from 'vitest';
import { canonicalDocument, canonicalJson } from '#/bundle/canonical.ts';
import { sha256 } from '#/bundle/keys.ts';
import { findTarget } from '#/bundle/trust/client.ts';
import { dateText } from '#/bundle/trust/shape.ts';
import { isProblem } from '#/protocol/errors.ts';
import { NOW_MS } from '#/test/support/trust-world.ts';
import { TufHost } from '#/test/support/tuf-client.ts';
import { edSigner, type SimSigner, TufSimulator } from '#/test/support/tuf-simulator.ts';

const PATH = 'images/web/1.0/app';
/** Fixed, so that a run says something about the commit and not about its luck; other seeds by the variable. */
const seed = Number(process.env['SEED'] ?? 1);
const runs = Number(process.env['RUNS'] ?? 120);

/** Why we may refuse what tuf-js accepts, by our code. */
const stricter: Readonly<Record<string, string>> = {
  E_PARSE: 'tuf-js reads with JSON.parse: duplicate keys, any depth',
  E_CANON: 'tuf-js takes 1e3, 1.0 and -0 for integers',
  E_SCHEMA:
    'tuf-js takes snapshot and timestamp entries without digests, role names of any form, fields of wrong types that it does not use',
  E_HASHALG: 'tuf-js takes hashes: {} and checks nothing',
  E_VERSION: 'tuf-js takes version 0, negative, fractional and unsafe versions',
  E_EXPIRES: 'tuf-js takes dates without Z, with fractions, and dates that do not exist',
  E_DUPSIG: 'tuf-js lets the last of two signatures by one key count',
  E_SIGS: 'tuf-js counts one key under two key ids twice',
  E_SPEC: 'tuf-js takes 1.x with anything behind it',
  E_TOOBIG: 'tuf-js has larger limits',
  E_ROLLBACK: 'tuf-js starts anew when its cached copy has a wrong form',
};

let directory = '';
beforeAll(async () => {
  directory = await mkdtemp(`${tmpdir()}/tuf-differential-`);
  vi.useFakeTimers({ toFake: ['Date'], now: NOW_MS });
});
afterAll(async () => {
  vi.useRealTimers();
  await rm(directory, { recursive: true });
});

/** A number in [0, limit) that follows from the seed. */
type Pick = (limit: number) => number;

function picker(run: number): Pick {
  let count = 0;
  return (limit) => {
    count += 1;
    const digest = createHash('sha256').update(`${seed} ${run} ${count}`).digest();
    return digest.readUInt32LE(0) % limit;
  };
}

class MapFetcher extends BaseFetcher {
  readonly #files: ReadonlyMap<string, Uint8Array>;
  constructor(files: ReadonlyMap<string, Uint8Array>) {
    super();
    this.#files = files;
  }
  override async fetch(url: string): Promise<ReadableStream<Uint8Array<ArrayBuffer>>> {
    const bytes = this.#files.get(url.replace('http://tuf/', ''));
    if (bytes === undefined) {
      throw Object.assign(new Error('not found'), { statusCode: 404 });
    }
    return new Response(Buffer.from(bytes)).body as ReadableStream<Uint8Array<ArrayBuffer>>;
  }
}

/** The digest of the target, or the reason of the refusal. */
type Verdict = { readonly target: string } | { readonly refused: string };

async function askOurs(host: TufHost): Promise<Verdict> {
  try {
    const set = await host.refresh();
    const found = await findTarget(set, PATH, host.session());
    return { target: found.target.hashes.get('sha256') ?? '' };
  } catch (error) {
    if (!isProblem(error)) throw error;
    return { refused: error.code };
  }
}

async function askTufJs(files: ReadonlyMap<string, Uint8Array>, cache: string): Promise<Verdict> {
  const { DownloadHTTPError } = createRequire(import.meta.url)('tuf-js/dist/error.js') as {
    DownloadHTTPError: new (message: string, status: number) => Error;
  };
  const fetcher = new MapFetcher(files);
  const { downloadBytes } = fetcher;
  fetcher.downloadBytes = async (url, maxLength) => {
    try {
      return await downloadBytes.call(fetcher, url, maxLength);
    } catch (error) {
      if (error instanceof Error && 'statusCode' in error) {
        throw new DownloadHTTPError('not found', 404);
      }
      throw error;
    }
  };
  try {
    const updater = new Updater({
      metadataDir: cache,
      metadataBaseUrl: 'http://tuf/metadata',
      fetcher,
    });
    await updater.refresh();
    const target = await updater.getTargetInfo(PATH);
    if (target === undefined) return { refused: 'no target' };
    return { target: target.hashes['sha256'] ?? '' };
  } catch (error) {
    return { refused: String(error) };
  }
}

function build(): TufSimulator {
  const sim = new TufSimulator();
  sim.delegate('targets', 'img-web', ['images/web/*/*'], { terminating: true });
  sim.delegate('targets', 'grp-blue', ['groups/blue/*'], { terminating: true });
  sim.addTarget('img-web', PATH, 'content');
  sim.publish();
  return sim;
}

interface Files {
  signed: Record<string, unknown>;
  signatures: { keyid: string; sig: string }[];
}
type Mutation = (sim: TufSimulator, pick: Pick) => void;

const strange: readonly unknown[] = [
  0,
  -1,
  1,
  2,
  1.5,
  2 ** 53,
  null,
  true,
  '',
  'x',
  '1',
  [],
  {},
  [''],
  { a: 1 },
  '../x',
  '2030-01-01T00:00:00',
  dateText(NOW_MS / 1000 - 1),
  dateText(NOW_MS / 1000 + 60),
  '1.0',
  '1.1.7',
  '2.0.0',
  'ed25519',
  'rsa',
];

/** Changes one value somewhere inside `value`; returns false when there is nothing to change. */
function mutateInside(value: object, pick: Pick): boolean {
  const keys = Object.keys(value);
  if (keys.length === 0) return false;
  const object = value as Record<string, unknown>;
  const key = keys[pick(keys.length)] ?? '';
  const child = object[key];
  if (typeof child === 'object' && child !== null && pick(4) > 0 && mutateInside(child, pick)) {
    return true;
  }
  switch (pick(5)) {
    case 0:
      delete object[key];
      return true;
    case 1:
      object[`${key}x`] = child;
      if (pick(2) === 0) delete object[key];
      return true;
    case 2:
      if (typeof child === 'number') {
        object[key] = child + 1 - pick(3);
        return true;
      }
      object[key] = structuredClone(strange[pick(strange.length)]);
      return true;
    default:
      object[key] = structuredClone(strange[pick(strange.length)]);
      return true;
  }
}

const roleNames = ['timestamp', 'snapshot', 'targets', 'img-web', 'grp-blue'] as const;

function documentOf(sim: TufSimulator, role: string): object {
  if (role === 'timestamp') return sim.timestamp;
  if (role === 'snapshot') return sim.snapshot;
  return sim.role(role);
}

/** Publishes all as the documents say, with versions raised, so that a mutation is well signed and well listed. */
const mutations: Readonly<Record<string, Mutation>> = {
  'a document of a role, signed and listed': (sim, pick) => {
    const role = roleNames[pick(roleNames.length)] ?? 'targets';
    mutateInside(documentOf(sim, role), pick);
    sim.bump();
    if (pick(2) === 0) sim.publish();
  },
  'the next root, signed': (sim, pick) => {
    sim.bumpRoot(() => {
      mutateInside(sim.root, pick);
    });
  },
  'a file after it was signed': (sim, pick) => {
    sim.bump('targets', 'img-web');
    const names = [...sim.files.keys()].filter((name) => name.startsWith('metadata/'));
    const name = names[pick(names.length)] ?? '';
    const file = JSON.parse(Buffer.from(sim.files.get(name) ?? '').toString()) as Files;
    mutateInside(file, pick);
    sim.files.set(name, Buffer.from(JSON.stringify(file)));
  },
  'one byte of a file': (sim, pick) => {
    sim.bump('targets', 'img-web');
    const names = [...sim.files.keys()].filter((name) => name.startsWith('metadata/'));
    const name = names[pick(names.length)] ?? '';
    const bytes = Uint8Array.from(sim.files.get(name) ?? new Uint8Array(1));
    bytes[pick(bytes.length)]! ^= 1 << pick(8);
    sim.files.set(name, bytes);
  },
  'the signers of a role': (sim, pick) => {
    const role = roleNames[pick(roleNames.length)] ?? 'targets';
    const own = sim.signers.get(role) ?? [];
    const other = edSigner(5000 + pick(3));
    const choices: SimSigner[][] = [[], [other], [...own, other], [...own, ...own]];
    sim.signers.set(role, choices[pick(choices.length)] ?? []);
    sim.bump('targets', 'img-web', 'grp-blue');
  },
  'threshold and keys of a top-level role': (sim, pick) => {
    const role = (['timestamp', 'snapshot', 'targets', 'root'] as const)[pick(4)] ?? 'root';
    sim.bumpRoot(() => {
      if (pick(2) === 0) sim.rotate(role);
      if (pick(2) === 0) sim.addKey(role);
      sim.root.roles[role]!.threshold = 1 + pick(3);
      if (pick(3) === 0) sim.signers.set(role, (sim.signers.get(role) ?? []).slice(1));
    });
    sim.bump('targets');
  },
  'versions that go back': (sim, pick) => {
    sim.bump('targets', 'img-web');
    sim.snapshot.version -= pick(3);
    sim.timestamp.version -= pick(3);
    sim.role('img-web').version -= pick(3);
    sim.publish();
  },
  'paths and order of delegations': (sim, pick) => {
    const roles = sim.role('targets').delegations?.roles ?? [];
    const patterns = [
      'images/*/*/*',
      'images/*',
      '*',
      'images/web/*/a*',
      'images/w?b/*/*',
      'groups/*',
    ];
    for (const role of roles) {
      role.paths = [patterns[pick(patterns.length)] ?? '*'];
      role.terminating = pick(2) === 0;
    }
    if (pick(2) === 0) roles.reverse();
    if (pick(2) === 0) sim.addTarget('grp-blue', PATH, 'other content');
    sim.bump('targets', 'img-web', 'grp-blue');
  },
};

it('whatever we accept, tuf-js accepts too, and finds the same target', async () => {
  const tally = { both: 0, neither: 0, stricter: new Map<string, number>() };
  const names = Object.keys(mutations);
  for (let run = 0; run < runs; run += 1) {
    const pick = picker(run);
    const name = names[run % names.length] ?? '';
    const sim = build();
    const host = new TufHost(sim);
    const cache = await mkdtemp(`${directory}/cache-`);
    await writeFile(`${cache}/root.json`, sim.files.get('metadata/1.root.json') ?? '');
    if (pick(3) > 0) {
      // Both have seen the repository before it changes.
      expect(await askOurs(host)).toEqual(await askTufJs(sim.files, cache));
    }
    try {
      mutations[name]?.(sim, pick);
    } catch (error) {
      // The mutation left nothing that can be signed or listed: the repository stays as it was before that step.
      if (!isProblem(error) && !(error instanceof TypeError)) throw error;
    }
    const ours = await askOurs(host);
    const theirs = await askTufJs(sim.files, cache);
    const where = `SEED=${seed} run ${run}: ${name}: ours ${JSON.stringify(ours)}, tuf-js ${JSON.stringify(theirs)}`;
    if ('target' in ours) {
      expect(theirs, where).toEqual(ours);
      tally.both += 1;
    } else if ('target' in theirs) {
      expect(Object.keys(stricter), where).toContain(ours.refused);
      tally.stricter.set(ours.refused, (tally.stricter.get(ours.refused) ?? 0) + 1);
    } else {
      tally.neither += 1;
    }
    await rm(cache, { recursive: true });
  }
  // The comparison compared something.
  expect(tally.both).toBeGreaterThan(runs / 20);
  expect(tally.neither).toBeGreaterThan(runs / 20);
}, 600_000);

it('canonical forms and key ids are those of tuf-js', async () => {
  const { canonicalize } = await import('@tufjs/canonical-json');
  const value = { b: ['é\n"\\', 1, null, true], a: { '\u007f': -3, é: {} } };
  expect(Buffer.from(canonicalJson(value)).toString()).toBe(canonicalize(value));
  expect(sha256(canonicalDocument({ a: 1 }))).toBe(sha256(Buffer.from('{"a":1}')));
  expect(await readFile(new URL('../../package.json', import.meta.url), 'utf8')).toContain(
    'tuf-js',
  );
});
