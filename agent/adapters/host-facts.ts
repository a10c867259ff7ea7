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

/** What the host saw of signed metadata and of its line to control: docs/specs/trust.md, section 11. */
export interface TrustFacts {
  /** The signed metadata has expired (X03). */
  readonly trustStale: boolean;
  /** Why the last look at signed metadata failed; null: it did not. */
  readonly trustCode: string | null;
  /** Kind of the last thing that the verifier had to tell and that stopped nothing. */
  readonly trustNotice: string | null;
  /** What the signed pin makes this host wait for, such as its wave (X04). */
  readonly trustWaits: string | null;
  /** The last refusal of the line to control since the start. */
  readonly controlCode: string | null;
  /** When the newest root expires, ms; null: not looked at yet (A32). */
  readonly rootExpires: number | null;
}

/** What the host is: name, system, size, kind of machine. `boot` is a hint by which control finds clones (F62). */
export async function hostFacts(options: {
  readonly bootId: string;
  readonly machine: string;
  readonly slotsRoot: string;
  readonly trust?: TrustFacts;
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
    virtual: machine.virtual === true || hasHypervisor(textOf('/proc/cpuinfo')),
    vendor: machine.manufacturer,
    model: machine.model,
    systemd: isSystemd(),
    node: process.version,
    ...trustTexts(options.trust),
    machine: options.machine.slice(0, 16),
    boot: options.bootId.replaceAll('-', '').slice(0, 16),
  });
}

/** Whether /proc/cpuinfo says so (x86): small images have none of the programs by which systeminformation finds QEMU. */
export function hasHypervisor(cpuinfo: string): boolean {
  return /^flags\s*:.*\bhypervisor\b/m.test(cpuinfo);
}

function textOf(path: string): string {
  try {
    return readFileSync(path, 'latin1');
  } catch {
    return '';
  }
}

function trustTexts(trust: TrustFacts | undefined): HostFacts {
  const { rootExpires = null } = trust ?? {};
  return {
    trustStale: trust?.trustStale === true,
    trustCode: trust?.trustCode ?? '',
    trustNotice: trust?.trustNotice ?? '',
    trustWaits: trust?.trustWaits ?? '',
    controlCode: trust?.controlCode ?? '',
    trustRootExpires: rootExpires === null ? '' : new Date(rootExpires).toISOString(),
  };
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
