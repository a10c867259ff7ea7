/** The Debian that containers start from: made once, kept in .work/. */
import { execFile } from 'node:child_process';
import { existsSync } from 'node:fs';
import { mkdir, rename, rm } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { promisify } from 'node:util';
import { REPOSITORY } from '#/test/support/fleet/fleet.ts';

/** What a small server has, and a clock that can be turned for one service. */
const PACKAGES = 'systemd,systemd-sysv,dbus,iproute2,libfaketime';
const SUITE = 'bookworm';
const PATH = join(REPOSITORY, '.work/nspawn', `root-${SUITE}-2`);

/** Path of the root, which nobody writes to. */
export async function debianRoot(): Promise<string> {
  if (existsSync(PATH)) return PATH;
  const staging = `${PATH}.tmp`;
  await rm(staging, { recursive: true, force: true });
  await mkdir(dirname(PATH), { recursive: true });
  process.stdout.write(`making a Debian root by mmdebstrap in ${PATH}\n`);
  await promisify(execFile)('mmdebstrap', [
    '--variant=minbase',
    `--include=${PACKAGES}`,
    // A host on a network would fetch what the package depends on: here it lies in apt's cache.
    '--skip=cleanup/apt',
    '--customize-hook=chroot "$1" apt-get install -y --download-only --no-install-recommends libatomic1',
    '--aptopt=Apt::Install-Recommends "false"',
    SUITE,
    staging,
  ]);
  await rename(staging, PATH);
  return PATH;
}
