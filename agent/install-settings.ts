/** Settings of an installation from the configuration of the agent. */
import { availableParallelism } from 'node:os';
import { authoritiesOf } from './adapters/control-link.ts';
import type { Settings } from './config.ts';
import { defaultInstallSettings, type InstallSettings } from './install/settings.ts';

/** More threads than this do not help: the disk and the network are the limit. */
const WORKERS_MAX = 2;

/** `caPem`: the CA that an enrolled host was given, or null. */
export function installSettings(settings: Settings, caPem: string | null): InstallSettings {
  const { bandwidthBytesPerS, parallel, workers, patches } = settings.download;
  const { cpuPriority, ioPriority } = settings.download;
  const { connectTimeoutMs, headersTimeoutMs } = settings.control;
  return {
    ...defaultInstallSettings,
    bandwidthBytesPerSecond: bandwidthBytesPerS === 0 ? null : bandwidthBytesPerS,
    connections: parallel,
    workers: workers === 0 ? Math.min(WORKERS_MAX, availableParallelism()) : workers,
    connectTimeoutMs,
    headerTimeoutMs: headersTimeoutMs,
    caPem: authoritiesOf(settings.control, caPem),
    patches,
    priority: { cpu: cpuPriority, io: ioPriority },
  };
}
