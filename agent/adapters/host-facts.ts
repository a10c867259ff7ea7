/** Facts that a host tells of itself: for people and selectors, never for trust. systeminformation is loaded when they are asked for. */
import { readFileSync } from 'node:fs';
import { availableParallelism, hostname, release } from 'node:os';

export type HostFacts = Readonly<Record<string, string | number | boolean>>;

const TEXT_MAX = 256;

/** The architecture in the words of Debian, or null for one that has no artifacts. */
export function hostArch(arch: string = process.arch): 'amd64' | 'arm64' | null {
  if (arch === 'x64') return 'amd64';
  return arch === 'arm64' ? 'arm64' : null;
}

/** What the host is: name, system, size, kind of machine. `boot` is a hint by which control finds clones (F62). */
export async function hostFacts(options: {
  readonly bootId: string;
  readonly machine: string;
  readonly slotsRoot: string;
  /** The signed metadata has expired (X03). */
  readonly trustStale?: boolean;
}): Promise<HostFacts> {
  const { mem, system, osInfo, fsSize } = await import('systeminformation');
  const [memory, machine, os, disks] = await Promise.all([mem(), system(), osInfo(), fsSize()]);
  const mount = disks
    .filter((disk) =>
      `${options.slotsRoot}/`.startsWith(disk.mount === '/' ? '/' : `${disk.mount}/`),
    )
    .sort((a, b) => b.mount.length - a.mount.length)[0];
  return limited({
    hostname: hostname(),
    arch: hostArch() ?? process.arch,
    kernel: release(),
    os: os.distro,
    osRelease: os.release,
    cpus: availableParallelism(),
    memoryBytes: memory.total,
    diskBytes: mount?.size ?? 0,
    virtual: machine.virtual === true,
    vendor: machine.manufacturer,
    model: machine.model,
    systemd: isSystemd(),
    node: process.version,
    trustStale: options.trustStale === true,
    machine: options.machine.slice(0, 16),
    boot: options.bootId.replaceAll('-', '').slice(0, 16),
  });
}

/** True when systemd is PID 1 of this host. */
export function isSystemd(): boolean {
  try {
    return readFileSync('/proc/1/comm', 'latin1').trim() === 'systemd';
  } catch {
    return false;
  }
}

function limited(facts: Record<string, string | number | boolean>): HostFacts {
  return Object.fromEntries(
    Object.entries(facts).map(([fact, value]) => [
      fact,
      typeof value === 'string' ? value.slice(0, TEXT_MAX) : value,
    ]),
  );
}
