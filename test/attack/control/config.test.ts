/**
 * Attacks on sealed secrets at a control that was taken over: its database and its keys against the operator's program, with a real
 * agent beside it that runs a version with its config set. The host's side: ../host/config.test.ts.
 */
import { chmodSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { canonicalDocument } from '#/bundle/canonical.ts';
import { CONFIG_PAYLOAD_TYPE, peekConfigSet } from '#/bundle/config-set.ts';
import { signEnvelope } from '#/bundle/dsse.ts';
import { bytesOfHex, hexOf, sha256, type Signer, signerOf } from '#/bundle/keys.ts';
import { sealPublicKeyOf } from '#/bundle/seal.ts';
import { openDataDir } from '#/control/data-dir.ts';
import { signStatement } from '#/control/engine/statements.ts';
import { encodeKeyFile } from '#/control/trust/key-file.ts';
import type { Envelope } from '#/protocol/documents.ts';
import { type ArtifactId, type ConfigId, type HostId, versionIdOf } from '#/protocol/ids.ts';
import { codeIn, GuardedControl } from '#/test/support/attack/guarded-control.ts';
import { filesWith, type Form, formsIn, formsOf } from '#/test/support/attack/secret-scan.ts';
import { processesWith } from '#/test/support/attack/secret-scan.ts';
import { hex, signedHeaders } from '#/test/support/control/world.ts';
import { definitionOf } from '#/test/support/config-world.ts';

const SECRET = 'correct horse battery staple 1618033';
/** A file system in memory: what is opened of a config set is never on a disk. */
const memory = mkdtempSync('/dev/shm/guarded-config-');
let guarded: GuardedControl;
let artifact: ArtifactId;
let config: ConfigId;
let id: HostId;

const write = (name: string, text: string): void => {
  writeFileSync(join(guarded.directory, name), text);
  chmodSync(join(guarded.directory, name), 0o600);
};
const definition = (version: number): string => definitionOf(version, artifact, `v${version}`);

async function made(version: number): Promise<string> {
  const file = `web-${version}.config`;
  write(`web-${version}.toml`, definition(version));
  await guarded.op.ok(
    ...['config', 'build', `web-${version}.toml`, '--out', file, '--key', 'config.json'],
  );
  return file;
}
const listed = (file: string): Promise<string> =>
  guarded.op.ok('config', 'import', file, '--key', 'config.json', '--reason', 'test');

/** The code of a command that must fail; what it said otherwise. */
async function codeOf(...args: readonly string[]): Promise<string> {
  const { exitCode, stdout, stderr } = await guarded.op.run(...args);
  return exitCode === 0 ? `accepted: ${stdout}` : (/E_[A-Z_]+/.exec(stderr)?.[0] ?? stderr);
}

/** Control says so of the host from here on; what `work` gives, and then the truth again. */
async function stating<T>(
  signer: Signer,
  sealKey: Uint8Array,
  work: () => Promise<T>,
  host = id,
): Promise<T> {
  const { engine } = guarded.world.control;
  const before = engine.fleet.hosts.get(id)!;
  const statement = signStatement(signer, {
    schema: 'switchback.host-statement/1',
    host,
    group: before.group,
    class: 'web',
    arch: 'amd64',
    signKey: before.signKey,
    sealKey: hexOf(sealKey),
    seq: 9,
    issuedAtMs: Date.now(),
  });
  const put = (change: object): Promise<void> =>
    engine.change((draft) => draft.putHost({ ...draft.host(id), ...change }));
  await put({ sealKey: hexOf(sealKey), statement });
  try {
    return await work();
  } finally {
    await put({ sealKey: before.sealKey, statement: before.statement });
  }
}

beforeAll(async () => {
  guarded = await GuardedControl.start(`[config]\ndirectory = "${memory}"\n`);
  id = guarded.witness.id as HostId;
  const { trustKeys } = await openDataDir(guarded.world.dir);
  const key = trustKeys.filter((each) => each.use === 'config');
  write('config.json', Buffer.from(encodeKeyFile(key as never)).toString());
  write('password.txt', SECRET);
  artifact = await guarded.release(2, { config: { schema: 'web', version: 2 } });
  const file = await made(1);
  // Somebody compared the key of the host, and accepts it.
  await guarded.op.ok('config', 'seal', file, '--accept', id);
  await listed(file);
  const { items } = await guarded.world.admin.call('configList', {});
  config = items[0]!.configId;
  await guarded.op.ok('pin', 'web', artifact, '--config-set', 'web/1', '--reason', 'with config');
  await guarded.runs(versionIdOf(artifact, config));
});
afterAll(async () => {
  await guarded?.[Symbol.asyncDispose]();
  rmSync(memory, { recursive: true, force: true });
});

const thief = sealPublicKeyOf(new Uint8Array(32).fill(66));
const SMALL = ['00'.repeat(32), `01${'00'.repeat(31)}`, `ec${'ff'.repeat(30)}7f`];

it('X05 a key of the thief, in a statement that every key but that of enrolment may have signed', async () => {
  const { trustKeys } = await openDataDir(guarded.world.dir);
  const file = await made(2);
  for (const { signer } of trustKeys)
    await stating(signer, thief, () =>
      guarded.refusesLocally('E_SIGS', () => codeOf('config', 'seal', file, '--accept', 'all')),
    );
});

it('X05 the statement of another host under the name of this one', async () => {
  const { enrolment } = await openDataDir(guarded.world.dir);
  const other = `h-${'7'.repeat(32)}` as HostId;
  const file = await made(3);
  const seal = (): Promise<string> => codeOf('config', 'seal', file, '--accept', 'all');
  await stating(enrolment, thief, () => guarded.refusesLocally('E_SEAL', seal), other);
});

it('X05 with the enrolment key as well: nothing is sealed to a key that nobody compared', async () => {
  const { enrolment } = await openDataDir(guarded.world.dir);
  const file = await made(4);
  await stating(enrolment, thief, () =>
    guarded.refusesLocally('other key', async () => {
      const told = await guarded.op.ok('config', 'seal', file, '--json');
      const { sealedFor, strangers } = JSON.parse(told) as Record<string, { why: string }[]>;
      expect(sealedFor).toEqual([]);
      const bytes = readFileSync(join(guarded.directory, file), 'utf8');
      expect(JSON.parse(bytes)).toMatchObject({ sealed: { hosts: {} } });
      return strangers?.[0]?.why;
    }),
  );
});

it('B05 a key of small order, stated with the enrolment key and accepted', async () => {
  const { enrolment } = await openDataDir(guarded.world.dir);
  const file = await made(5);
  for (const key of SMALL)
    await stating(enrolment, bytesOfHex(key, 32)!, () =>
      guarded.refusesLocally('E_SEAL', () => codeOf('config', 'seal', file, '--accept', 'all')),
    );
});

it('B05 a host enrols with a key of small order', async () => {
  const { token } = await guarded.world.admin.call('joinTokenCreate', { body: { group: 'web' } });
  const url = `${guarded.publicUrl}/agent/v1/enroll`;
  const signer = signerOf(bytesOfHex(hex(32), 32)!);
  const enrols = (sealKey: string): Promise<string> => {
    const facts = { class: 'web', arch: 'amd64', agentVersion: '0.1.0', facts: {} };
    const body = Buffer.from(
      JSON.stringify({ token, signKey: hexOf(signer.key.bytes), sealKey, ...facts }),
    );
    const headers = signedHeaders(url, 'POST', body, signer);
    return codeIn(fetch(url, { method: 'POST', body, headers }));
  };
  for (const key of SMALL) await guarded.refuses('E_SEAL', () => enrols(key));
  // Neither was the token used up, nor is the key of this request what was refused.
  expect(await enrols(hexOf(thief))).toBe('accepted');
});

it('G05 a config set that a stranger signed', async () => {
  guarded.op.key('stranger.json', 'config');
  write('odd.toml', definition(6));
  await guarded.op.ok(
    ...['config', 'build', 'odd.toml', '--out', 'odd.config', '--key', 'stranger.json'],
  );
  const imports = (key: string) => () =>
    codeOf('config', 'import', 'odd.config', '--key', key, '--reason', 'x');
  await guarded.refusesLocally('E_SIGS', imports('config.json'));
});

it('G09 a config set that holds the digest of a secret', async () => {
  const file = await made(7);
  const { envelope, ...rest } = JSON.parse(readFileSync(join(guarded.directory, file), 'utf8')) as {
    envelope: Envelope;
    sealed: object;
  };
  const { set } = peekConfigSet(envelope);
  const secrets = {
    DB_PASSWORD: { ...set.secrets['DB_PASSWORD'], sha256: sha256(Buffer.from(SECRET)) },
  };
  const payload = canonicalDocument({ ...set, secrets } as never);
  const { trustKeys } = await openDataDir(guarded.world.dir);
  const { signer } = trustKeys.find((each) => each.use === 'config')!;
  const signed = signEnvelope(CONFIG_PAYLOAD_TYPE, payload, [signer]);
  const sealed = { ...rest.sealed, configId: sha256(payload) };
  write('telling.config', JSON.stringify({ ...rest, envelope: signed, sealed }));
  await guarded.refusesLocally('E_SCHEMA', () =>
    codeOf('config', 'import', 'telling.config', '--key', 'config.json', '--reason', 'x'),
  );
});

it('G08, G09 a secret, its digest or its data key, at control or where it is published', async () => {
  const dataKey = dataKeyOf('web-1.config.keys');
  const forms: Form[] = [
    ...formsOf('secret', Buffer.from(SECRET)),
    ...formsOf('data key', dataKey),
  ];
  await guarded.world.control.engine.settled();
  // The database with its journal, the log, every document that is published.
  expect(filesWith(guarded.world.dir, forms)).toEqual([]);
  const published = Buffer.concat([...guarded.world.control.engine.fleet.trust.values()]);
  expect(formsIn(published, forms)).toEqual([]);
  await guarded.op.ok('audit', 'export', '--out', 'export');
  expect(filesWith(join(guarded.directory, 'export'), forms)).toEqual([]);
  const token = { authorization: `Bearer ${guarded.world.adminToken}` };
  const metrics = await (
    await fetch(`${guarded.world.control.url}/metrics`, { headers: token })
  ).text();
  const answers = await Promise.all([
    guarded.world.admin.call('audit', { query: { limit: '1000' } }),
    guarded.world.admin.call('hostShow', { params: { host: id } }),
    guarded.world.admin.call('configList', {}),
  ]);
  const said = JSON.stringify([metrics, answers, guarded.reports]);
  expect(formsIn(Buffer.from(said), forms)).toEqual([]);
  // On the operator's machine: the secret where he keeps it, and the data keys in the files that only he may read.
  const { directory } = guarded;
  const mine = filesWith(directory, forms).map((line) => line.replace(`${directory}/`, ''));
  expect(mine).toEqual(['password.txt: secret plain', 'web-1.config.keys: data key hex']);
  // On the host: in memory alone.
  const { agent } = guarded.witness;
  expect(filesWith(agent.directory, forms)).toEqual([]);
  expect(processesWith(agent.pid, forms)).toEqual([]);
  expect(readdirSync(memory)).toEqual([config]);
  expect(filesWith(memory, forms)).toEqual([
    `${join(memory, config, 'DB_PASSWORD')}: secret plain`,
  ]);
});

it('a host that trades its keys by order is believed at once, or is sealed to unasked', async () => {
  const { agent } = guarded.witness;
  const was = guarded.world.control.engine.fleet.hosts.get(id)!;
  const told = JSON.parse(await agent.command('rotate-keys', '--json')) as Record<string, string>;
  const now = guarded.world.control.engine.fleet.hosts.get(id)!;
  expect(now).toMatchObject({ sealKey: told['sealKey'], keyId: told['keyId'] });
  expect([now.keyId === was.keyId, now.sealKey === was.sealKey]).toEqual([false, false]);
  // An agent that starts reports; one that goes on may have nothing new to say.
  await agent.stop();
  guarded.reports.length = 0;
  agent.start();
  await guarded.runs(versionIdOf(artifact, config));
  const file = await made(8);
  const { sealedFor, strangers } = JSON.parse(
    await guarded.op.ok('config', 'seal', file, '--json'),
  ) as { sealedFor: string[]; strangers: object[] };
  expect(sealedFor).toEqual([]);
  expect(strangers).toContainEqual({ host: id, sealKey: told['sealKey'], why: 'other key' });
  const again = await guarded.op.ok('config', 'seal', file, '--accept', id, '--json');
  expect(JSON.parse(again)).toMatchObject({ added: [id] });
});

function dataKeyOf(file: string): Uint8Array {
  const { keys } = JSON.parse(readFileSync(join(guarded.directory, file), 'utf8')) as {
    keys: Record<string, string>;
  };
  return bytesOfHex(keys['DB_PASSWORD'] ?? '', 32)!;
}
