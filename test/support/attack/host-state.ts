/** What of a host must not change, or only move forward, whatever is done to it: read from its disk. */
import { readdir, readFile, readlink } from 'node:fs/promises';
import { join } from 'node:path';
import { expect } from 'vitest';
import { openDirectory } from '#/agent/adapters/durable.ts';
import { nodeFiles } from '#/agent/adapters/file-port.ts';
import { readMemory } from '#/agent/adapters/trust-state.ts';
import { createTrustStore } from '#/agent/adapters/trust-store.ts';
import { emptyMemory, type TrustMemory } from '#/bundle/trust/resolve.ts';
import { isProblem } from '#/protocol/errors.ts';
import { treeDigest } from '#/test/support/lone-host/lone-host.ts';
import type { AgentProcess } from './agent-process.ts';

export interface HostState {
  /** What `current` names. */
  readonly link: string;
  /** Over all that is in it. */
  readonly digest: string;
  readonly memory: TrustMemory;
  /** Versions of the metadata in the cache, by file. */
  readonly versions: ReadonlyMap<string, number>;
}

type Places = Pick<AgentProcess, 'stateDirectory' | 'slots'>;

/** What the host remembers; empty where it was damaged on purpose. */
export async function memoryOf(host: Places, id: string): Promise<TrustMemory> {
  const directory = join(host.stateDirectory, 'trust');
  await openDirectory(nodeFiles(), directory);
  try {
    return (await readMemory(createTrustStore(nodeFiles(), directory), id)) ?? emptyMemory;
  } catch (error) {
    if (!isProblem(error, 'E_STATE')) throw error;
    return emptyMemory;
  }
}

export async function stateOf(host: Places, id: string): Promise<HostState> {
  const link = await readlink(join(host.slots, 'current'));
  const versions = new Map<string, number>();
  const trust = join(host.stateDirectory, 'trust');
  for (const name of await readdir(trust)) {
    if (!/^(root|role)\./.test(name)) continue;
    versions.set(name, versionIn(await readFile(join(trust, name))));
  }
  const digest = await treeDigest(join(host.slots, link));
  return { link, digest, memory: await memoryOf(host, id), versions };
}

/** Version of a metadata file; 0 where it was damaged on purpose. */
export function versionIn(bytes: Uint8Array): number {
  try {
    const file = JSON.parse(Buffer.from(bytes).toString()) as { signed?: { version?: number } };
    return file.signed?.version ?? 0;
  } catch {
    return 0;
  }
}

/**
 * Floors, pins, revocations, time and versions are what they were or higher. `keysReplaced`: of the online roles, whose
 * files may then begin at 1 again.
 */
export function movedForward(before: HostState, after: HostState, keysReplaced = false): void {
  for (const field of ['floors', 'committed', 'pins'] as const)
    for (const [key, value] of Object.entries(before.memory[field]))
      expect(after.memory[field][key], `${field} ${key}`).toBeGreaterThanOrEqual(value);
  for (const field of ['revokedArtifacts', 'revokedKeyIds'] as const)
    expect(after.memory[field]).toEqual(expect.arrayContaining([...before.memory[field]]));
  expect(after.memory.timeFloor).toBeGreaterThanOrEqual(before.memory.timeFloor);
  expect(after.memory.log?.size ?? 0).toBeGreaterThanOrEqual(before.memory.log?.size ?? 0);
  for (const [name, version] of before.versions) {
    if (keysReplaced && /^role\.(timestamp|snapshot)\.json$/.test(name)) continue;
    expect(after.versions.get(name), name).toBeGreaterThanOrEqual(version);
  }
}
