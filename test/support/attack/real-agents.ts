/** Agents as they are shipped at a real control, with bundles that a real server hands out. */
import { mkdtempSync, readFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { MANIFEST_PAYLOAD_TYPE, signEnvelope } from '#/bundle/dsse.ts';
import { sha256 } from '#/bundle/keys.ts';
import type { Manifest } from '#/bundle/manifest.ts';
import { openDataDir } from '#/control/data-dir.ts';
import type { ArtifactId, GroupName } from '#/protocol/ids.ts';
import { formatInvitation } from '#/protocol/join-token.ts';
import type { World } from '#/test/support/control/world.ts';
import { craftBundle, fileEntry } from '#/test/support/install/crafted-bundle.ts';
import { AgentProcess } from './agent-process.ts';
import type { Intruder } from './intruder.ts';

export interface EnrolledAgent {
  readonly agent: AgentProcess;
  readonly id: string;
}

/** Releases version `1.<number>.0` of class web with the keys that control holds; its bundle is served by `server`. */
export async function releaseBundle(
  world: World,
  server: Intruder,
  directory: string,
  number: number,
  changes: Partial<Manifest> = {},
): Promise<ArtifactId> {
  const path = join(directory, 'a.bundle');
  const [entry, content] = fileEntry('app', `version ${number}\n`.repeat(3000));
  const { manifestBytes, artifactId } = await craftBundle(path, {
    entries: [entry],
    contents: new Map([[sha256(content), content]]),
    manifest: (manifest) => ({
      ...manifest,
      version: `1.${number}.0`,
      release: number,
      trial: { ...manifest.trial, deadlineMs: 600_000, maxBoots: 3 },
      ...changes,
    }),
  });
  server.bundles.set(artifactId, readFileSync(path));
  const { trustKeys } = await openDataDir(world.dir);
  const key = trustKeys.find(({ use }) => use === 'release');
  if (key === undefined) throw new Error('control holds no release key');
  await world.admin.call('releaseReference', {
    body: {
      manifest: Buffer.from(manifestBytes).toString('base64'),
      envelope: signEnvelope(MANIFEST_PAYLOAD_TYPE, manifestBytes, [key.signer]),
      sources: [`${server.url}/bundle/${artifactId}`],
    },
  });
  return artifactId;
}

/** Enrols a new agent through `server` and starts it. `settings`: lines of TOML below its own. */
export async function enrolAgent(
  world: World,
  server: Intruder,
  program: string,
  group: string,
  settings = '',
): Promise<EnrolledAgent> {
  const agent = new AgentProcess(program, mkdtempSync(join(tmpdir(), 'real-agent-')));
  agent.configure(settings);
  const { token } = await world.admin.call('joinTokenCreate', {
    body: { group: group as GroupName, ttlSeconds: 600 },
  });
  const root = world.control.engine.fleet.trust.get('metadata/1.root.json');
  if (root === undefined) throw new Error('control has no first root');
  const text = formatInvitation({
    controlUrls: [server.url],
    token,
    rootSha256: sha256(root),
    caPem: null,
  });
  const { host: id } = JSON.parse(await agent.command('enrol', text, '--json')) as { host: string };
  agent.start();
  return { agent, id };
}
