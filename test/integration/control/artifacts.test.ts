import { createHash, randomBytes } from 'node:crypto';
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { createConnection } from 'node:net';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { parsePatchHeader } from '#/bundle/patch.ts';
import type { Signer } from '#/bundle/keys.ts';
import { buildPatch } from '#/control/cli/bundle/patch-build.ts';
import { openDataDir } from '#/control/data-dir.ts';
import { artifactsDir } from '#/control/http/artifacts.ts';
import { isProblem } from '#/protocol/errors.ts';
import type { ArtifactId } from '#/protocol/ids.ts';
import type { ReleaseView } from '#/protocol/release.ts';
import { build } from '#/test/support/bundle/build-sample.ts';
import { startWorld, type World } from '#/test/support/control/world.ts';

let world: World;
let file: string;
let bytes: Buffer;
let signer: Signer;
let view: ReleaseView;

async function* stream(of: Uint8Array, step = 65_536): AsyncGenerator<Uint8Array> {
  for (let at = 0; at < of.length; at += step) yield of.subarray(at, at + step);
}

beforeAll(async () => {
  world = await startWorld();
  const { trustKeys } = await openDataDir(world.dir);
  signer = trustKeys.find((key) => key.use === 'release')?.signer as Signer;
  const input = join(world.dir, '../tree');
  mkdirSync(input);
  writeFileSync(join(input, 'big'), randomBytes(600_000));
  file = join(world.dir, '../x.bundle');
  await build(input, file, { signers: [signer] });
  bytes = readFileSync(file);
  view = await world.admin.call('releaseImport', { body: stream(bytes) });
});
afterAll(() => world[Symbol.asyncDispose]());

const fetchArtifact = (headers: Record<string, string> = {}, method = 'GET'): Promise<Response> =>
  fetch(`${world.control.url}/artifacts/${view.artifactId}.bundle`, { headers, method });
const digest = (of: Uint8Array): string => createHash('sha256').update(of).digest('hex');

describe('bundles', () => {
  it('an upload is verified, admitted, and served byte for byte', async () => {
    expect(view.bundleBytes).toBe(bytes.length);
    expect(view.signers).toEqual([signer.key.keyId]);
    const answer = await fetchArtifact();
    expect(answer.headers.get('accept-ranges')).toBe('bytes');
    expect(digest(new Uint8Array(await answer.arrayBuffer()))).toBe(digest(bytes));
    const metadata = await fetch(`${world.control.url}/agent/v1/trust/metadata/timestamp.json`);
    expect(metadata.headers.get('cache-control')).toBe('no-cache');
    await metadata.text();
  });

  it('the same upload again is no change', async () => {
    const before = await world.admin.call('audit', { query: { limit: '1000' } });
    const again = await world.admin.call('releaseImport', { body: stream(bytes) });
    expect(again.artifactId).toBe(view.artifactId);
    const after = await world.admin.call('audit', { query: { limit: '1000' } });
    expect(after.items).toHaveLength(before.items.length);
  });

  it('ranges: first bytes, last bytes, middle, past the end', async () => {
    const [first, last, middle] = await Promise.all([
      fetchArtifact({ range: 'bytes=0-99' }),
      fetchArtifact({ range: 'bytes=-100' }),
      fetchArtifact({ range: 'bytes=1000-' }),
    ]);
    expect([first.status, last.status, middle.status]).toEqual([206, 206, 206]);
    expect(Buffer.from(await first.arrayBuffer()).equals(bytes.subarray(0, 100))).toBe(true);
    expect(Buffer.from(await last.arrayBuffer()).equals(bytes.subarray(-100))).toBe(true);
    expect(Buffer.from(await middle.arrayBuffer()).equals(bytes.subarray(1000))).toBe(true);
    expect(first.headers.get('content-range')).toBe(`bytes 0-99/${bytes.length}`);
    const past = await fetchArtifact({ range: `bytes=${bytes.length}-` });
    expect([past.status, ((await past.json()) as { code: string }).code]).toEqual([416, 'E_RANGE']);
  });

  it('If-Range with another ETag gives the whole file, with ours the range', async () => {
    const other = await fetchArtifact({ range: 'bytes=0-9', 'if-range': '"another"' });
    expect(other.status).toBe(200);
    await other.arrayBuffer();
    const ours = await fetchArtifact({ range: 'bytes=0-9', 'if-range': `"${view.artifactId}"` });
    expect(ours.status).toBe(206);
    await ours.arrayBuffer();
  });

  it('HEAD tells the length and sends nothing', async () => {
    const head = await fetchArtifact({}, 'HEAD');
    expect(head.headers.get('content-length')).toBe(String(bytes.length));
    expect((await head.arrayBuffer()).byteLength).toBe(0);
  });

  it.each([0.1, 0.5, 0.99])(
    'a bundle with one flipped bit at %d of it is refused and leaves nothing behind',
    async (at) => {
      const damaged = Buffer.from(bytes);
      const index = Math.floor(damaged.length * at);
      damaged[index] = (damaged[index] ?? 0) ^ 1;
      const before = readdirSync(artifactsDir(world.dir));
      const error = await world.admin
        .call('releaseImport', { body: stream(damaged) })
        .catch((e: unknown) => e);
      expect(isProblem(error)).toBe(true);
      expect(readdirSync(artifactsDir(world.dir))).toEqual(before);
    },
  );

  it('a bundle that is cut short is refused and leaves nothing behind', async () => {
    const before = readdirSync(artifactsDir(world.dir));
    const error = await world.admin
      .call('releaseImport', { body: stream(bytes.subarray(0, bytes.length - 1000)) })
      .catch((e: unknown) => e);
    expect(isProblem(error)).toBe(true);
    expect(readdirSync(artifactsDir(world.dir))).toEqual(before);
  });

  it('a bundle that nobody trusted signed is not admitted', async () => {
    const stranger = join(world.dir, '../stranger.bundle');
    await build(join(world.dir, '../tree'), stranger, {
      definitionChanges: { release: 2, version: '2.0' },
    });
    const error = await world.admin
      .call('releaseImport', { body: stream(readFileSync(stranger)) })
      .catch((e: unknown) => e);
    expect(isProblem(error, 'E_SIGS')).toBe(true);
    expect((await world.admin.call('releaseList', {})).items).toHaveLength(1);
  });

  it('an upload whose sender dies leaves nothing behind', async () => {
    const before = readdirSync(artifactsDir(world.dir));
    const socket = createConnection(world.control.port, '127.0.0.1');
    socket.write(
      `POST /api/v1/releases/import HTTP/1.1\r\nhost: x\r\nauthorization: Bearer ${world.adminToken}\r\ncontent-length: 5000000\r\n\r\n`,
    );
    socket.write(bytes.subarray(0, 100_000));
    const isUploading = (): boolean => readdirSync(artifactsDir(world.dir)).length > before.length;
    while (!isUploading()) await new Promise((resolve) => setTimeout(resolve, 10));
    socket.destroy();
    while (isUploading()) await new Promise((resolve) => setTimeout(resolve, 10));
    expect(readdirSync(artifactsDir(world.dir))).toEqual(before);
  });

  it('a revoked release is never admitted again, and cannot be pinned', async () => {
    const group = await world.group('sample');
    const body = { artifactId: view.artifactId, reason: 'x' };
    await world.admin.call('releaseRevoke', {
      params: { artifact: view.artifactId },
      body: { reason: 'bad' },
    });
    const pin = await world.admin
      .call('groupPin', { params: { group }, body })
      .catch((e: unknown) => e);
    expect(isProblem(pin, 'E_REVOKED')).toBe(true);
    const again = await world.admin
      .call('releaseImport', { body: stream(bytes) })
      .catch((e: unknown) => e);
    expect(isProblem(again, 'E_REVOKED')).toBe(true);
  });
});

describe('events', () => {
  it('a stream resumes after the last id that was seen, and goes on with what happens then', async () => {
    const audit = await world.admin.call('audit', { query: { limit: '1000' } });
    const last = audit.items.at(-2)?.id ?? 0;
    const abort = new AbortController();
    const answer = await fetch(`${world.control.url}/api/v1/events`, {
      headers: { authorization: `Bearer ${world.adminToken}`, 'last-event-id': String(last) },
      signal: abort.signal,
    });
    expect(answer.headers.get('content-type')).toBe('text/event-stream');
    const reader = answer.body?.pipeThrough(new TextDecoderStream()).getReader();
    let text = '';
    const readUntil = async (what: string): Promise<void> => {
      while (!text.includes(what)) text += (await reader?.read())?.value ?? '';
    };
    await readUntil(`id: ${last + 1}\n`);
    await world.admin.call('halt', { body: { reason: 'fire' } });
    await readUntil('event: halt\n');
    const ids = [...text.matchAll(/^id: (\d+)$/gm)].map((m) => Number(m[1]));
    expect(ids).toEqual([last + 1, last + 2]);
    abort.abort();
  });
});

describe('patches', () => {
  it('an upload is checked against both bundles, served beside the new one, and refused when it is wrong', async () => {
    const input = join(world.dir, '../tree');
    const content = readFileSync(join(input, 'big'));
    for (let at = 1000; at < content.length; at += 10_000) content.write('edit', at);
    writeFileSync(join(input, 'big'), content);
    const next = join(world.dir, '../y.bundle');
    const definitionChanges = { version: '1.1', release: 2 };
    await build(input, next, { signers: [signer], definitionChanges });
    const out = join(world.dir, '../y.patch');
    await buildPatch({ from: file, to: next, out, workers: 1 });
    const patch = readFileSync(out);
    const { from, to } = parsePatchHeader(patch, patch.length);
    const send = (body: Uint8Array): Promise<unknown> =>
      world.admin
        .call('releasePatch', { params: { artifact: to as ArtifactId }, body: stream(body) })
        .catch((error: unknown) => error);
    const before = readdirSync(artifactsDir(world.dir));
    expect(await send(patch), 'its bundle was not imported').toMatchObject({ code: 'E_NOT_FOUND' });
    await world.admin.call('releaseImport', { body: stream(readFileSync(next)) });
    const damaged = Buffer.from(patch);
    damaged[damaged.length - 30] = (damaged.at(-30) ?? 0) ^ 1;
    expect(await send(damaged)).toMatchObject({ code: 'E_HASH' });
    expect(await send(bytes)).toMatchObject({ code: 'E_SCHEMA' });
    expect(readdirSync(artifactsDir(world.dir)).length).toBe(before.length + 1);
    expect(await send(patch)).toEqual({ from, to, patchBytes: patch.length });
    const answer = await fetch(`${world.control.url}/artifacts/${to}.from-${from}.patch`, {
      headers: { range: 'bytes=0-99' },
    });
    expect(answer.status).toBe(206);
    expect(Buffer.from(await answer.arrayBuffer()).equals(patch.subarray(0, 100))).toBe(true);
    const missing = await fetch(`${world.control.url}/artifacts/${from}.from-${to}.patch`);
    expect(missing.status).toBe(404);
    await missing.arrayBuffer();
  });
});
