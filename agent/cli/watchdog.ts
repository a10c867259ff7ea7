/** What resets the machine when it hangs: the device, who feeds it, and how far that reaches. */
import { readFileSync, statSync } from 'node:fs';
import { createExec } from '#/agent/adapters/exec.ts';
import type { Finding } from './doctor.ts';

export interface WatchdogSight {
  /** `/dev/watchdog0`, or null. */
  readonly device: string | null;
  /** What the driver calls it: `i6300ESB timer`, `Software Watchdog`. */
  readonly identity: string | null;
  /** systemd resets the machine when it is not fed for so long; 0: it does not feed it. Null: no systemd. */
  readonly runtimeMs: number | null;
  /** As systemd-detect-virt says: `kvm`, `vmware`, `none`; null when nobody can say. */
  readonly hypervisor: string | null;
}

export interface WatchdogJudgement {
  readonly finding: Finding;
  /** One sentence: what happens when this machine hangs, and where. */
  readonly reach: string;
}

const SUBJECT = 'watchdog';
const EXEC_TIMEOUT_MS = 5_000;
/** How each hypervisor gives its guests one. */
const DEVICES: Readonly<Record<string, string>> = {
  kvm: 'add a watchdog device to the VM (libvirt: <watchdog model="i6300esb" action="reset"/>)',
  qemu: 'start qemu with -device i6300esb -watchdog-action reset',
  vmware: 'this hypervisor has none for guests: load softdog, which does not survive a hung kernel',
  microsoft:
    'this hypervisor has none for guests: load softdog, which does not survive a hung kernel',
  none: 'load the driver of the board (modprobe iTCO_wdt, sp5100_tco or ipmi_watchdog)',
};

/** Says what is there and what to do. */
export function judgeWatchdog(sight: WatchdogSight): WatchdogJudgement {
  const { device, identity, runtimeMs, hypervisor } = sight;
  if (hypervisor?.startsWith('container:') === true)
    return {
      finding: {
        subject: SUBJECT,
        verdict: 'ok',
        seen: 'a container: the machine below has it',
        act: null,
      },
      reach: 'a container is reset by whoever runs it',
    };
  if (device === null) {
    const how = DEVICES[hypervisor ?? ''] ?? 'give this machine a watchdog device';
    return {
      finding: warning(
        'no device',
        `${how}, then set RuntimeWatchdogSec=30s in /etc/systemd/system.conf.d/watchdog.conf.`,
      ),
      reach: 'hung in firmware, kernel or initrd it stays hung until someone resets it',
    };
  }
  const name = identity === null ? device : `${device} (${identity})`;
  if (runtimeMs === null || runtimeMs === 0)
    return {
      finding: warning(
        `${name} is there, and nobody feeds it`,
        'Set RuntimeWatchdogSec=30s in /etc/systemd/system.conf.d/watchdog.conf, then systemctl daemon-reexec.',
      ),
      reach: 'hung in firmware, kernel or initrd it stays hung: the watchdog is not started',
    };
  const isSoft = identity === 'Software Watchdog';
  return {
    finding: {
      subject: SUBJECT,
      verdict: isSoft ? 'warning' : 'ok',
      seen: `${name}, fed by systemd, RuntimeWatchdogSec=${Math.round(runtimeMs / 1000)}s`,
      act: isSoft
        ? `It lives in the kernel that it watches: ${DEVICES[hypervisor ?? ''] ?? 'use a device'}.`
        : null,
    },
    reach: isSoft
      ? 'a hung PID 1 is reset, a hung kernel is not'
      : 'a hung kernel or PID 1 is reset; in firmware and initrd only if the device is armed before (nowayout, or the hypervisor)',
  };
}

function warning(seen: string, act: string): Finding {
  return { subject: SUBJECT, verdict: 'warning', seen, act };
}

/** Looks at the machine; changes nothing. */
export async function lookAtWatchdog(): Promise<WatchdogSight> {
  const device =
    ['/dev/watchdog0', '/dev/watchdog'].find(
      (path) => statSync(path, { throwIfNoEntry: false }) !== undefined,
    ) ?? null;
  const shown = await wordOf(['systemctl', 'show', '--property=RuntimeWatchdogUSec', '--value']);
  const virtual = await wordOf(['systemd-detect-virt', '--vm']);
  const container = await wordOf(['systemd-detect-virt', '--container']);
  return {
    device,
    identity: identityOf(device),
    runtimeMs: shown === null ? null : spanMs(shown),
    hypervisor: container !== null && container !== 'none' ? `container:${container}` : virtual,
  };
}

function identityOf(device: string | null): string | null {
  if (device === null) return null;
  try {
    return readFileSync('/sys/class/watchdog/watchdog0/identity', 'utf8').trim() || null;
  } catch {
    return null;
  }
}

/** The first line of what a program prints, also when its exit code is not 0; null when it cannot be run or is silent. */
async function wordOf(argv: readonly string[]): Promise<string | null> {
  const { stdout } = await createExec().run({ argv, timeoutMs: EXEC_TIMEOUT_MS });
  return stdout.split('\n', 1)[0]?.trim() || null;
}

/** A time span as systemd prints it, `1min 30s`, in ms; `0` and `infinity` are 0: not in use. */
export function spanMs(text: string): number {
  const units: Readonly<Record<string, number>> = {
    us: 0.001,
    ms: 1,
    s: 1000,
    min: 60_000,
    h: 3_600_000,
  };
  let ms = 0;
  for (const [, number, unit = ''] of text.matchAll(/(\d+)(us|ms|s|min|h)\b/g))
    ms += Number(number) * (units[unit] ?? 0);
  return ms;
}
