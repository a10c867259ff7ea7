/** The config sets of a host: kept, opened for what runs, restored at boot. docs/specs/config-sets.md, section 4. */
import { join } from 'node:path';
import { Problem, isProblem } from '#/protocol/errors.ts';
import { configOf, type HostId, type VersionId } from '#/protocol/ids.ts';
import type { HostActivator } from './adapters/activator.ts';
import { accountOf } from './adapters/activator-process.ts';
import { readSlotLink } from './adapters/boot-directory.ts';
import { configStore } from './adapters/config-store.ts';
import { nodeFiles } from './adapters/file-port.ts';
import {
  type HostIdentity,
  identityStore,
  loadIdentity,
  machineDigest,
} from './adapters/identity.ts';
import { systemRandom } from './adapters/random.ts';
import { createSecrets } from './adapters/secrets.ts';
import type { Settings } from './config.ts';
import { directoryLayout, isDirectorySlot } from './install/layout.ts';
import type { Configs, FilePort } from './ports.ts';

/** The config sets below the state directory. Nothing is read or made before the first one is needed. */
export function openConfigs(
  settings: Settings,
  files: FilePort,
  identity: Pick<HostIdentity, 'sealSecrets'> | null,
  host: HostId,
): Configs {
  const { directory, allowDisk } = settings.config;
  const { user } = settings.activation;
  return createSecrets({
    store: configStore(files, join(settings.state.directory, 'configs')),
    directory,
    runDirectory: settings.state.runDirectory,
    host,
    sealSecrets: () => identity?.sealSecrets() ?? [],
    owner: user === undefined ? null : accountOf(user),
    allowDisk,
  });
}

/** The activator, with the entries of a version in their place before it starts, and gone once nothing is live. */
export function withConfigs(
  activator: HostActivator,
  configs: Configs,
  live: () => Promise<VersionId | null>,
  onProblem: (problem: Problem) => void,
): HostActivator {
  const give = async (version: VersionId): Promise<void> => {
    await configs.provide(version);
    await configs.point(version);
  };
  return {
    ...activator,
    async activate(slot, version, manifest) {
      await give(version);
      await activator.activate(slot, version, manifest);
    },
    async deactivate() {
      await activator.deactivate();
      await configs.point(null);
      await configs.wipeAllBut(null);
    },
    async resume() {
      const version = await live();
      try {
        if (version !== null) await give(version);
        await configs.wipeAllBut(version);
      } catch (error) {
        // The service may run all the same, and its own checks say how it does; an agent that ended here helps nobody.
        if (!isProblem(error)) throw error;
        onProblem(error);
      }
      await activator.resume();
    },
  };
}

/**
 * At boot, before any service starts: the entries of every version that is kept, since a trial may go either way. The agent takes
 * away what is not needed when it has started. Returns the versions; throws the problem of the live one.
 */
export async function restoreConfigs(settings: Settings): Promise<readonly VersionId[]> {
  const files = nodeFiles();
  const machine = machineDigest(settings.host.machineIdFile);
  const store = identityStore(files, settings.state.directory);
  const identity = await loadIdentity(store, machine, systemRandom());
  if (identity === null) throw new Problem('E_CONFIG', 'this host is not enrolled');
  const configs = openConfigs(settings, files, identity, identity.host);
  const live = await liveVersion(settings, files);
  const restored: VersionId[] = [];
  for (const version of await configs.kept()) {
    try {
      await configs.provide(version);
      restored.push(version);
    } catch (error) {
      if (!isProblem(error) || version === live) throw error;
    }
  }
  if (live !== null && configOf(live) !== null) await configs.provide(live);
  if (live !== null) await configs.point(live);
  return restored;
}

/** By the link; a partition host learns from its agent what it runs. */
async function liveVersion(settings: Settings, files: FilePort): Promise<VersionId | null> {
  if (settings.slots.kind !== 'directory') return null;
  const slot = await readSlotLink(files, directoryLayout(settings.slots.root).current);
  return slot !== null && isDirectorySlot(slot) ? slot : null;
}
