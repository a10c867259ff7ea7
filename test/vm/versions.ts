/** The versions that the machines are given: what is wrong with each, and how it has to be taken back. */

export interface VmVersion {
  readonly name: string;
  readonly version: string;
  readonly release: number;
  /** What goes wrong, for the titles. Null: nothing. */
  readonly wrong: string | null;
  /** Shell that makes it so, in the root of the image. */
  readonly change: string;
  /** How many boots it may have. */
  readonly maxBoots: number;
  /** The code that control hears, and words of the console that show that it really went wrong in this way. */
  readonly code: RegExp;
  readonly shows: RegExp;
}

const good = (name: string, version: string, release: number): VmVersion => ({
  name,
  version,
  release,
  wrong: null,
  change: '',
  // The most that there are: emulated machines hang by themselves now and then.
  maxBoots: 3,
  code: /^$/,
  shows: /login:/,
});

export const firstVersion = good('v1', '1.0.0', 1);
export const secondVersion = good('v2', '2.0.0', 2);
export const lastVersion = good('v4', '4.0.0', 40);
export const goodVersions: readonly VmVersion[] = [firstVersion, secondVersion, lastVersion];

const FELL_BACK = /^E_(?:FELL_BACK|TRIAL_BOOTS)$/;

export const unhealthyVersion: VmVersion = {
  name: 'unhealthy',
  version: '3.0.0-unhealthy',
  release: 34,
  wrong: 'it boots and fails its health check',
  change: 'rm etc/healthy',
  maxBoots: 2,
  code: /^E_(?:UNHEALTHY|DEADLINE)$/,
  shows: /login:/,
};

export const badVersions: readonly VmVersion[] = [
  {
    name: 'panic',
    version: '3.0.0-panic',
    release: 31,
    wrong: 'its kernel panics',
    // Without its initrd the kernel has no driver for the disk.
    change:
      'echo "$(cat etc/kernel/cmdline 2>/dev/null) console=ttyS0,115200 panic=5 rdinit=/not-there" >etc/kernel/cmdline',
    maxBoots: 1,
    code: FELL_BACK,
    shows: /Kernel panic - not syncing: VFS: Unable to mount root fs/,
  },
  {
    name: 'no-init',
    version: '3.0.0-no-init',
    release: 32,
    wrong: 'its init never comes up',
    change:
      "rm sbin/init && printf '#!/bin/sh\\necho this init ends\\nexit 1\\n' >sbin/init && chmod 755 sbin/init",
    maxBoots: 1,
    code: FELL_BACK,
    shows: /Kernel panic - not syncing: Attempted to kill init/,
  },
  {
    name: 'no-agent',
    version: '3.0.0-no-agent',
    release: 33,
    wrong: 'its agent is missing',
    change: 'rm usr/lib/switchback-agent/*.mjs',
    maxBoots: 2,
    code: /^E_(?:DEADLINE|TRIAL_BOOTS|FELL_BACK)$/,
    shows: /login:/,
  },
  unhealthyVersion,
  {
    name: 'hang',
    version: '3.0.0-hang',
    release: 35,
    wrong: 'it hangs, and the watchdog resets it',
    // PID 1 stops at a fault of its own and does nothing any more: neither guard nor agent is ever started again.
    change: `cat >etc/systemd/system/hang.service <<'END'
[Unit]
DefaultDependencies=no
After=sysinit.target
Before=basic.target
[Service]
Type=oneshot
ExecStart=/bin/sh -c 'sleep 3; kill -SEGV 1; sleep infinity'
[Install]
WantedBy=basic.target
END
mkdir -p etc/systemd/system/basic.target.wants
ln -s ../hang.service etc/systemd/system/basic.target.wants/hang.service`,
    maxBoots: 1,
    code: FELL_BACK,
    shows: /Freezing execution|Caught <SEGV>/,
  },
];

/** What a version's image and manifest are made from. */
export function definitionOf(version: VmVersion): string {
  return `name = "os"
class = "os"
version = "${version.version}"
release = ${version.release}
compressionLevel = 3

[activation]
kind = "reboot"

[[health]]
name = "healthy"
kind = "file"
path = "/etc/healthy"
successesNeeded = 2
failuresAllowed = 2

[trial]
soakMs = 5000
deadlineMs = ${version.name === 'no-agent' ? 90_000 : 600_000}
maxBoots = ${version.maxBoots}
`;
}
