/** Trust on real files: the durable cache of an agent, bundle files without control, key files. */
import { chmod, mkdtemp, readdir, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { nodeFiles } from '#/agent/adapters/file-port.ts';
import { createTrust } from '#/agent/adapters/trust-client.ts';
import { createTrustStore } from '#/agent/adapters/trust-store.ts';
import { canonicalDocument } from '#/bundle/canonical.ts';
import { memberHeader, padding } from '#/bundle/container.ts';
import { encodeEnvelope, MANIFEST_PAYLOAD_TYPE, signEnvelope } from '#/bundle/dsse.ts';
import type { Signer } from '#/bundle/keys.ts';
import type { TrustFetch, TrustStore } from '#/bundle/trust/client.ts';
import { readKeyFile, writeKeyFile } from '#/control/trust/key-file.ts';
import { revoke, setFloors } from '#/control/trust/targets.ts';
import { Problem } from '#/protocol/errors.ts';
import {
  assignmentOf,
  contextOf,
  HOST,
  manifestFor,
  NOW_MS,
  signerNumber,
  TrustWorld,
} from '#/test/support/trust-world.ts';

let directory = '';
beforeEach(async () => {
  directory = await mkdtemp(`${tmpdir()}/trust-files-`);
});
afterEach(async () => {
  await rm(directory, { recursive: true });
});

function agent(
  world: TrustWorld,
  store: TrustStore,
  targets: Uint8Array | null = null,
  fetch: TrustFetch = world.fetch(),
) {
  return createTrust({
    anchor: { root: world.files.get('metadata/1.root.json')!, targets },
    fetch,
    store,
    owner: HOST,
    arch: 'amd64',
    agent: 1_000_000,
    builtAtMs: 0,
    onNotice: () => undefined,
  });
}

/** Control does not answer. */
const silence = (): Promise<never> => Promise.reject(new Problem('E_NETWORK', 'no route to host'));
const unreachable: TrustFetch = { metadata: silence, target: silence };

/** The leading members of a bundle file: all that is looked at before its content. */
async function bundleFile(release: number, signers: readonly Signer[]): Promise<string> {
  const manifest = canonicalDocument(manifestFor(release));
  const envelope = encodeEnvelope(signEnvelope(MANIFEST_PAYLOAD_TYPE, manifest, signers));
  const created = 1_700_000_000;
  const member = (name: Parameters<typeof memberHeader>[0], bytes: Uint8Array): Uint8Array[] => [
    memberHeader(name, bytes.length, created),
    bytes,
    padding(bytes.length),
  ];
  const path = `${directory}/bundle-${release}.sbb`;
  const index = new Uint8Array(100);
  await writeFile(
    path,
    Buffer.concat([
      ...member('manifest.json', manifest),
      ...member('manifest.dsse.json', envelope),
      ...member('attestations.intoto.jsonl', new Uint8Array()),
      ...member('chunks.index', index),
      ...member('chunks.data', new Uint8Array()),
    ]),
  );
  return path;
}

describe('the cache on disk', () => {
  it('an agent that starts again knows what it knew', async () => {
    const world = new TrustWorld();
    const artifact = world.release(1);
    world.pin(artifact, 3);
    const store = createTrustStore(nodeFiles(), directory);
    await agent(world, store).resolve(assignmentOf(artifact), contextOf(NOW_MS));
    expect((await readdir(directory)).toSorted()).toEqual([
      'document.groups%2Fblue%2Fdesired.json',
      'document.policy%2Fbuilders.json',
      'document.policy%2Ffloors.json',
      'document.policy%2Frevoked.json',
      'memory',
      'role.grp-blue.json',
      'role.img-web.json',
      'role.policy.json',
      'role.snapshot.json',
      'role.targets.json',
      'role.timestamp.json',
    ]);
    const again = await agent(world, store).status();
    expect(again.timeFloor).toBe(NOW_MS / 1000);
  });
});

describe('bundle files without control', () => {
  async function ready() {
    const world = new TrustWorld();
    const artifact = world.release(1);
    world.pin(artifact, 1);
    const store = createTrustStore(nodeFiles(), directory);
    const trust = agent(world, store);
    return { world, artifact, store, trust };
  }
  const context = { class: 'web', nowMs: NOW_MS };

  it('a file signed by the release keys is offered, from the cached or from the built-in delegation', async () => {
    const { world, artifact, trust, store } = await ready();
    const path = await bundleFile(1, [world.key('release')]);
    const before = agent(world, store, null, unreachable);
    await expect(before.resolveFile(path, context)).rejects.toMatchObject({ code: 'E_SIGS' });
    await trust.resolve(assignmentOf(artifact), contextOf(NOW_MS));
    const offer = await agent(world, store, null, unreachable).resolveFile(path, context);
    expect(offer).toMatchObject({ artifactId: artifact.artifactId, sources: [`file://${path}`] });
    const built = world.files.get('metadata/3.targets.json')!;
    await rm(directory, { recursive: true });
    directory = await mkdtemp(`${tmpdir()}/trust-files-`);
    const alone = agent(world, createTrustStore(nodeFiles(), directory), built, unreachable);
    const second = await bundleFile(1, [world.key('release')]);
    expect((await alone.resolveFile(second, context)).artifactId).toBe(artifact.artifactId);
    expect(store).toBeDefined();
  });

  it('a file signed by others, changed, or no bundle at all is refused', async () => {
    const { world, artifact, trust } = await ready();
    await trust.resolve(assignmentOf(artifact), contextOf(NOW_MS));
    const foreign = await bundleFile(1, [signerNumber(2)]);
    await expect(trust.resolveFile(foreign, context)).rejects.toMatchObject({ code: 'E_SIGS' });
    const junk = `${directory}/junk`;
    await writeFile(junk, 'no bundle');
    await expect(trust.resolveFile(junk, context)).rejects.toMatchObject({ code: 'E_SCHEMA' });
    const path = await bundleFile(1, [world.key('release')]);
    await expect(trust.resolveFile(path, { ...context, class: 'db' })).rejects.toMatchObject({
      code: 'E_NOTARGET',
    });
    await expect(
      trust.resolveFile(path, { ...context, nowMs: NOW_MS + 400 * 86_400_000 }),
    ).rejects.toMatchObject({ code: 'E_EXPIRED' });
  });

  it('C19 C20 a file below the committed release, below the floor or revoked is refused', async () => {
    const { world, artifact, trust } = await ready();
    await trust.resolve(assignmentOf(artifact), contextOf(NOW_MS));
    const old = await bundleFile(1, [world.key('release')]);
    await trust.raiseFloor('web', 2);
    await expect(trust.resolveFile(old, context)).rejects.toMatchObject({ code: 'E_FLOOR' });
    const third = await bundleFile(3, [world.key('release')]);
    expect((await trust.resolveFile(third, context)).manifest.release).toBe(3);
    world.publish(setFloors(world.repository(), { web: 4 }));
    await trust.refresh(NOW_MS);
    await expect(trust.resolveFile(third, context)).rejects.toMatchObject({ code: 'E_FLOOR' });
    const fifth = await bundleFile(5, [world.key('release')]);
    const { artifactId } = await trust.resolveFile(fifth, context);
    world.publish(revoke(world.repository(), { artifacts: [artifactId] }));
    await trust.refresh(NOW_MS);
    await expect(trust.resolveFile(fifth, context)).rejects.toMatchObject({ code: 'E_REVOKED' });
  });
});

describe('bundle files on a host whose state was lost or put back', () => {
  const context = { class: 'web', nowMs: NOW_MS };
  /** A host that saw a pin, before release 1 was revoked and the floor rose. */
  async function rewound() {
    const world = new TrustWorld();
    const first = world.release(1);
    world.pin(first, 1);
    const store = createTrustStore(nodeFiles(), directory);
    await agent(world, store).resolve(assignmentOf(first), contextOf(NOW_MS));
    world.publish(revoke(world.repository(), { artifacts: [first.artifactId] }));
    world.publish(setFloors(world.repository(), { web: 3 }));
    const files = [1, 2, 3].map((release) => bundleFile(release, [world.key('release')]));
    return { world, store, files: await Promise.all(files) };
  }

  it('H05 a file that was revoked since, or is below the floor of now, is installed', async () => {
    const { world, store, files } = await rewound();
    const trust = agent(world, store);
    for (const [at, code] of ['E_REVOKED', 'E_FLOOR'].entries())
      await expect(trust.resolveFile(files[at]!, context)).rejects.toMatchObject({ code });
    expect((await trust.resolveFile(files[2]!, context)).manifest.release).toBe(3);
    // And it does not forget that, when control is gone afterwards.
    const later = agent(world, store, null, unreachable);
    await expect(later.resolveFile(files[0]!, context)).rejects.toMatchObject({
      code: 'E_REVOKED',
    });
  });

  it('H03 the memory is gone: the floors are not those of the policy', async () => {
    const { world, store, files } = await rewound();
    await rm(`${directory}/memory`);
    const trust = agent(world, store);
    await expect(trust.resolveFile(files[0]!, context)).rejects.toMatchObject({
      code: 'E_REVOKED',
    });
    await expect(trust.resolveFile(files[1]!, context)).rejects.toMatchObject({ code: 'E_FLOOR' });
  });

  it('a control that is silent, or lies, keeps root from helping the host', async () => {
    const { world, store, files } = await rewound();
    for (const fetch of [
      unreachable,
      { metadata: async () => Buffer.from('junk'), target: async () => null },
    ]) {
      const trust = agent(world, store, null, fetch);
      expect((await trust.resolveFile(files[1]!, context)).manifest.release).toBe(2);
    }
  });
});

describe('key files', () => {
  it('are written 0600, never over another, and read back', async () => {
    const world = new TrustWorld();
    const path = `${directory}/root.json`;
    await writeKeyFile(path, world.keys.root);
    expect((await stat(path)).mode & 0o777).toBe(0o600);
    const back = await readKeyFile(path);
    expect(back.map((key) => key.signer.key.keyId)).toEqual([world.key('root').key.keyId]);
    await expect(writeKeyFile(path, world.keys.root)).rejects.toMatchObject({ code: 'E_CONFLICT' });
  });

  it.each([0o640, 0o604, 0o660])('with mode %o are refused', async (mode) => {
    const path = `${directory}/keys.json`;
    await writeKeyFile(path, new TrustWorld().keys.control);
    await chmod(path, mode);
    await expect(readKeyFile(path)).rejects.toMatchObject({ code: 'E_CONFIG' });
  });

  it('that are missing or no key files are refused with the path', async () => {
    await expect(readKeyFile(`${directory}/none`)).rejects.toMatchObject({ code: 'E_CONFIG' });
    await writeFile(`${directory}/bad`, '{"schema":"switchback.keys/2","keys":[]}', {
      mode: 0o600,
    });
    await expect(readKeyFile(`${directory}/bad`)).rejects.toMatchObject({ code: 'E_SCHEMA' });
  });
});
