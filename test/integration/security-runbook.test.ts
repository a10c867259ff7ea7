/**
 * The recoveries of docs/security.md, run as they stand there: every line of its blocks, in order, against a real control with
 * starter trust. After each the thief's key stands nowhere, and a host's verifier follows to what is pinned.
 */
import { copyFileSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { AgentTrust } from '#/agent/adapters/trust-client.ts';
import { MANIFEST_PAYLOAD_TYPE, signEnvelope } from '#/bundle/dsse.ts';
import type { Signer } from '#/bundle/keys.ts';
import { rootKeyPath } from '#/control/data-dir.ts';
import { readKeyFile } from '#/control/trust/key-file.ts';
import type { ArtifactId } from '#/protocol/ids.ts';
import { verifierOf } from '#/test/support/control/verifier.ts';
import { manifestOf, startWorld, type TestHost, type World } from '#/test/support/control/world.ts';
import { Operator } from '#/test/support/trust/operator.ts';
import { assignmentOf, contextOf } from '#/test/support/trust-world.ts';

interface Status {
  readonly roles: readonly { readonly role: string; readonly keyIds: readonly string[] }[];
  readonly signers: readonly { readonly document: string; readonly keyIds: readonly string[] }[];
}

const text = readFileSync(join(import.meta.dirname, '../../docs/security.md'), 'utf8');
const recoveries = text.slice(
  text.indexOf('## What each stolen key gives'),
  text.indexOf('## Rotation'),
);
/** By heading, the lines of its block. The first is what every recovery begins with. */
const blocks = recoveries.split(/^##+ /m).flatMap((section) => {
  const [heading = ''] = section.split('\n');
  const lines = [...section.matchAll(/^```\n(.*?)^```$/gms)].flatMap(([, block = '']) =>
    block.split('\n').filter((line) => line !== ''),
  );
  return lines.length === 0 ? [] : [{ heading, lines }];
});

let world: World;
let op: Operator;
let host: TestHost;
let dir = '';
let trust: AgentTrust;
let pinned: ArtifactId;
let bad: ArtifactId;
/** What words in capitals stand for. */
const words = new Map<string, string>();

const json = async <T>(...args: readonly string[]): Promise<T> =>
  JSON.parse(await op.ok(...args, '--json')) as T;
const status = (): Promise<Status> => json<Status>('trust', 'status');
const write = (name: string, document: object): void =>
  writeFileSync(join(dir, name), JSON.stringify(document), { mode: 0o600 });
const publicOf = async (use: string): Promise<string> => {
  const { keys } = await json<{ keys: { use: string; public: string }[] }>('trust', 'keys');
  return keys.find((key) => key.use === use)!.public;
};

async function release(number: number, signer: Signer): Promise<ArtifactId> {
  const bytes = manifestOf(number);
  const envelope = signEnvelope(MANIFEST_PAYLOAD_TYPE, bytes, [signer]);
  const manifest = Buffer.from(bytes).toString('base64');
  const body = { manifest, envelope, sources: [`https://mirror.invalid/${number}.bundle`] };
  return (await world.admin.call('releaseReference', { body })).artifactId;
}

function verifier(): AgentTrust {
  const get = async (path: string): Promise<Uint8Array | null> => {
    const answer = await fetch(`${world.control.url}/agent/v1/trust/${path}`);
    const bytes = new Uint8Array(await answer.arrayBuffer());
    return answer.ok ? bytes : null;
  };
  return verifierOf(world, host, {
    metadata: (name) => get(`metadata/${name}`),
    target: (name) => get(`targets/${name}`),
    log: (path) => get(`log/${path}`),
  });
}
async function follows(artifactId: ArtifactId): Promise<void> {
  const assignment = { ...assignmentOf({ artifactId } as never), group: 'web' as never };
  const context = { ...contextOf(Date.now()), group: 'web' as never, host: host.id };
  expect((await trust.resolve(assignment, context))?.artifactId).toBe(artifactId);
}

/** One line of a block. */
async function perform(line: string): Promise<void> {
  const filled = line.replaceAll(/\b[A-Z]{4,}\b/g, (word) => words.get(word) ?? word);
  const args = [...filled.matchAll(/"([^"]*)"|(\S+)/g)].map(
    ([, quoted, plain]) => quoted ?? plain!,
  );
  if (line === '# restart control') await world.restart();
  else if (args[0] === 'rm') rmSync(args[1]!);
  else if (args[0] === 'switchback') await op.ok(...args.slice(1));
  else throw new Error(`the block has a line that is no command: ${line}`);
}

/** What a person has written or released before these commands. */
const before: Readonly<Record<string, () => Promise<void>>> = {
  Release: async () => {
    await op.ok('key', 'new', 'builder.json', '--use', 'release');
    const [builder] = await readKeyFile(join(dir, 'builder.json'));
    const { keys } = await json<{ keys: { public: string }[] }>('key', 'show', 'builder.json');
    const classes = [{ class: '*', threshold: 1, keys: [keys[0]!.public] }];
    write('builders.json', { schema: 'switchback.builders/1', classes });
    words.set('VERSION', '1.2.0');
    builders.push(builder!.signer);
  },
  'Gate key': async () => {
    const gates = (key: string): object => ({
      ...{ schema: 'switchback.gates/1', verifierId: 'gate', keys: [key], groups: [], rules: [] },
    });
    write('gates.json', gates(await publicOf('gate')));
    await op.ok('trust', 'policy', 'gates.json', '--key', 'policy-2.json', '--reason', 'gates');
    whenAsked.set('gates.json', async () => gates(await publicOf('gate')));
  },
  'Log key': async () => {
    whenAsked.set('log.json', async () => ({
      schema: 'switchback.log/1',
      origin: 'switchback-log/second/1',
      keys: [await publicOf('log')],
    }));
  },
  // It goes although its own pin was signed elsewhere.
  'Host key': async () => {
    const pin = ['trust', 'pin', 'web', '1.3.0', '--host', host.id, '--key', 'operator-2.json'];
    await op.ok(...pin, '--reason', 'x');
    const unpinned = await op.run('unpin', host.id, '--host');
    expect([unpinned.exitCode, unpinned.stderr]).toEqual([20, expect.stringContaining('E_SIGS')]);
  },
  'Operator token': async () => {
    const { id } = await json<{ id: string }>('token', 'create', 'thief', '--role', 'operator');
    words.set('TOKENID', id);
  },
};
const builders: Signer[] = [];
const whenAsked = new Map<string, () => Promise<object>>();
/** Where the key in question is named. */
const namedIn: Readonly<Record<string, (status: Status) => readonly string[] | undefined>> = {
  'Timestamp, snapshot': roleKeys('timestamp'),
  Release: roleKeys('img-web'),
  'Operator, of one group': roleKeys('grp-web'),
  'Config, of one scope': roleKeys('cfg-web'),
  Policy: roleKeys('policy'),
  'Gate key': documentKeys('policy/gates.json'),
  'Log key': documentKeys('policy/log.json'),
  Targets: roleKeys('targets'),
  'Root, below the threshold': roleKeys('root'),
};
function roleKeys(name: string): (status: Status) => readonly string[] | undefined {
  return ({ roles }) => roles.find(({ role }) => role === name)?.keyIds;
}
function documentKeys(name: string): (status: Status) => readonly string[] | undefined {
  return ({ signers }) => signers.find(({ document }) => document === name)?.keyIds;
}

beforeAll(async () => {
  dir = mkdtempSync(join(tmpdir(), 'sb-runbook-'));
  world = await startWorld();
  await world.group('web');
  host = await world.host('web');
  op = new Operator(dir, () => world.control.url, world.adminToken);
  copyFileSync(rootKeyPath(world.dir), join(dir, 'root.json'));
  pinned = await world.release(1);
  bad = await world.release(2);
  await op.ok('pin', 'web', '1.1.0', '--reason', 'first');
  op.key('config-1.json', 'config');
  await op.ok(
    'trust',
    'scope',
    'web',
    '--to',
    'config-1.json',
    '--key',
    'config-1.json',
    '--reason',
    'x',
  );
  words.set('DATA', world.dir);
  words.set('HOST', host.id);
  trust = verifier();
  await follows(pinned);
});
afterAll(async () => {
  await world[Symbol.asyncDispose]();
  rmSync(dir, { recursive: true, force: true });
});

describe('the recoveries of docs/security.md', () => {
  it.each(blocks)(
    '$heading: a command fails, the stolen key counts on, or hosts do not follow',
    async ({ heading, lines }) => {
      await before[heading]?.();
      const [stolen] = namedIn[heading]?.(await status()) ?? [];
      if (stolen !== undefined) words.set('KEYID', stolen);
      for (const line of lines) {
        for (const [file, document] of whenAsked)
          if (line.includes(file)) write(file, await document());
        await perform(line);
      }
      if (stolen !== undefined) expect(JSON.stringify(await status())).not.toContain(stolen);
      if (heading === 'Release') {
        await expect(follows(bad)).rejects.toMatchObject({ code: 'E_PIN' });
        pinned = await release(3, builders[0]!);
        words.set('VERSION', '1.3.0');
        await op.ok('pin', 'web', '1.3.0', '--reason', 'built anew');
      }
      await follows(pinned);
    },
  );

  it('the log that these left behind does not verify', async () => {
    await op.ok('halt', '--lift', '--reason', 'recovered');
    await op.ok('audit', 'export', '--out', 'afterwards');
    await op.ok('audit', 'verify', '--export', 'afterwards');
  });
});
