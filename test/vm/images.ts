/** Disks and bundles for the machines, by the image kit as users have it. One root is made by mmdebstrap and kept in .work/. */
import { execFile } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { rename, rm, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import type { Loader } from '#/control/cli/image/layout.ts';
import { BASE_PACKAGES, forgetBuilder } from '#/control/cli/image/root.ts';
import { type Fleet, REPOSITORY } from '#/test/support/fleet/fleet.ts';
import { definitionOf, type VmVersion } from './versions.ts';

const run = promisify(execFile);
const CACHE = join(REPOSITORY, '.work/vm');
const KERNEL = 'linux-image-cloud-amd64';
const SIZES = ['--esp-size', '128M', '--data-size', '256M', '--slot-size', '600M'];

/** A Debian without the agent, made once: what mmdebstrap gives does not belong to what is tested. */
export async function debianRoot(): Promise<string> {
  const path = join(CACHE, 'root-bookworm-2');
  if (existsSync(path)) return path;
  await rm(`${path}.tmp`, { recursive: true, force: true });
  mkdirSync(CACHE, { recursive: true });
  process.stdout.write(`making a Debian root by mmdebstrap in ${path}\n`);
  await run('mmdebstrap', [
    '--variant=minbase',
    `--include=${[...BASE_PACKAGES, KERNEL].join(',')}`,
    '--aptopt=Apt::Install-Recommends "false"',
    '--format=directory',
    'bookworm',
    `${path}.tmp`,
  ]);
  await forgetBuilder(`${path}.tmp`);
  await rename(`${path}.tmp`, path);
  return path;
}

export class Images {
  readonly #fleet: Fleet;
  readonly #directory: string;
  readonly #root: string;
  readonly #loader: Loader;
  /** Quick timings of the host, for all versions. */
  readonly #overlay: string;
  readonly #releases = new Map<string, Promise<void>>();
  #last: Promise<void> = Promise.resolve();

  constructor(fleet: Fleet, directory: string, root: string, loader: Loader) {
    this.#fleet = fleet;
    this.#directory = directory;
    this.#root = root;
    this.#loader = loader;
    this.#overlay = join(directory, 'overlay');
    writeOverlay(this.#overlay);
  }

  /** The disk of the first version; its bundle is imported. */
  async disk(version: VmVersion): Promise<string> {
    const out = join(this.#directory, 'disk.raw');
    this.#releases.set(version.name, Promise.resolve());
    await this.#make('build', version, [
      '--out',
      out,
      '--bundle-out',
      this.#bundle(version),
      ...SIZES,
    ]);
    return out;
  }

  /** Later versions, built and imported one after the other while a machine is busy with others; `release` waits for its own. */
  prepare(versions: readonly VmVersion[]): void {
    // A failure is told by `release`.
    for (const version of versions) this.#released(version).catch(() => undefined);
  }

  /** A later version: built and imported, once. */
  async release(version: VmVersion): Promise<void> {
    await this.#released(version);
  }

  #released(version: VmVersion): Promise<void> {
    const begun = this.#releases.get(version.name);
    if (begun !== undefined) return begun;
    const args = ['--out', this.#bundle(version), ...SIZES.slice(-2)];
    const release = this.#last.then(() => this.#make('bundle', version, args));
    this.#releases.set(version.name, release);
    this.#last = release.catch(() => undefined);
    return release;
  }

  #bundle(version: VmVersion): string {
    return join(this.#directory, `${version.name}.bundle`);
  }

  async #make(
    verb: 'build' | 'bundle',
    version: VmVersion,
    args: readonly string[],
  ): Promise<void> {
    const definition = join(this.#directory, `${version.name}.toml`);
    const hook = join(this.#directory, `${version.name}.sh`);
    writeFileSync(definition, definitionOf(version));
    writeFileSync(hook, `#!/bin/sh\nset -eu\ncd "$1"\n${version.change}\n`, { mode: 0o755 });
    const slim = join(import.meta.dirname, 'slim.sh');
    await this.#fleet.cli([
      'image',
      verb,
      '--definition',
      definition,
      '--root',
      this.#root,
      '--loader',
      this.#loader,
      '--agent',
      await agentPackage(),
      '--files',
      this.#overlay,
      '--hook',
      slim,
      '--hook',
      hook,
      ...args,
    ]);
    await this.#fleet.cli(['release', 'import', this.#bundle(version)]);
    await rm(this.#bundle(version));
  }
}

async function agentPackage(): Promise<string> {
  const directory = join(REPOSITORY, 'dist/deb');
  const name = existsSync(directory)
    ? readdirSync(directory).find((file) => /^switchback-agent_.*_amd64\.deb$/.test(file))
    : undefined;
  if (name === undefined)
    throw new Error('no package switchback-agent in dist/deb: npm run package');
  const path = join(directory, name);
  await stat(path);
  return path;
}

function writeOverlay(root: string): void {
  const link = (path: string): void => {
    mkdirSync(join(root, path, '..'), { recursive: true });
    rmSync(join(root, path), { force: true });
    symlinkSync('/dev/null', join(root, path));
  };
  const put = (path: string, text: string): void => {
    mkdirSync(join(root, path, '..'), { recursive: true });
    writeFileSync(join(root, path), text);
  };
  put('etc/healthy', '');
  // What only costs time under emulation.
  for (const unit of [
    'getty-static.service',
    'systemd-update-utmp.service',
    'systemd-update-utmp-runlevel.service',
  ])
    link(`etc/systemd/system/${unit}`);
  put('etc/kernel/cmdline', 'console=ttyS0,115200 panic=5 systemd.show_status=1 net.ifnames=0\n');
  put(
    'etc/systemd/network/80-dhcp.network',
    '[Match]\nName=eth0\n[Network]\nDHCP=ipv4\nLinkLocalAddressing=no\n',
  );
  put(
    'etc/systemd/journald.conf.d/console.conf',
    '[Journal]\nForwardToConsole=yes\nMaxLevelConsole=notice\nStorage=volatile\n',
  );
  put(
    'etc/switchback/config.d/10-host.toml',
    `[host]
class = "os"
[poll]
interval_ms = 2000
min_interval_ms = 500
first_spread_ms = 0
`,
  );
}
