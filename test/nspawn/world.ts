/** What all scenarios share: a real control, signed releases of a small service, containers with the package installed. */
import { execFile } from 'node:child_process';
import { copyFileSync, mkdirSync, readdirSync, writeFileSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { arch, tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { Fleet, REPOSITORY } from '#/test/support/fleet/fleet.ts';
import { Container } from './container.ts';
import { ManagedHost } from './managed-host.ts';
import { TestNetwork } from './network.ts';
import { debianRoot } from './root.ts';

const run = promisify(execFile);
const GROUP = 'web';
/** What systemd says of how much of the system each unit could reach. */
const EXPOSURE = `exposure() { systemd-analyze security --no-pager "$1" | tail -n 1 | sed "s/$/ $2/"; }
exposure switchback-agent
exposure switchback-guard
exposure switchback-guard-boot
mkdir -p /run/systemd/system/switchback-agent.service.d
cp /usr/share/doc/switchback-agent/examples/10-units-only.conf /run/systemd/system/switchback-agent.service.d/
systemctl daemon-reload
exposure switchback-agent '(with 10-units-only.conf)'
rm -r /run/systemd/system/switchback-agent.service.d
systemctl daemon-reload`;

interface ReleaseOptions {
  readonly version: string;
  readonly release: number;
  readonly soakMs: number;
  readonly deadlineMs: number;
  /** What the service does after it has said its version. */
  readonly program: string;
}

/** Every release that a scenario can pin, by version. */
const RELEASES: readonly ReleaseOptions[] = [
  { version: '1.0.0', release: 1, soakMs: 500, deadlineMs: 60_000, program: 'exec sleep infinity' },
  // Stays on trial long enough for anything to happen to it.
  {
    version: '2.0.0',
    release: 2,
    soakMs: 50_000,
    deadlineMs: 60_000,
    program: 'exec sleep infinity',
  },
  // Its deadline comes long before its heartbeat is missed.
  {
    version: '2.5.0',
    release: 3,
    soakMs: 24_000,
    deadlineMs: 25_000,
    program: 'exec sleep infinity',
  },
  {
    version: '3.0.0',
    release: 4,
    soakMs: 4_000,
    deadlineMs: 90_000,
    program: 'exec sleep infinity',
  },
  // Starts, and ends after a moment.
  { version: '4.0.0', release: 5, soakMs: 4_000, deadlineMs: 60_000, program: 'sleep 1; exit 1' },
];

export class World {
  readonly fleet: Fleet;
  readonly directory: string;
  readonly packageFile: string;
  readonly controlPackageFile: string;
  readonly #network: TestNetwork;
  readonly #root: string;
  /** The layer that installing the package made. */
  #installed = '';
  #count = 0;
  readonly #containers: Container[] = [];

  private constructor(fleet: Fleet, directory: string, network: TestNetwork, root: string) {
    this.fleet = fleet;
    this.directory = directory;
    this.#network = network;
    this.#root = root;
    this.packageFile = packageFile('switchback-agent');
    this.controlPackageFile = packageFile('switchback-control');
  }

  static async create(): Promise<World> {
    const root = await debianRoot();
    const directory = await mkdtemp(join(tmpdir(), 'switchback-nspawn-'));
    // In memory: the disk of this machine has other work, and what is cut here is processes, not disks.
    await run('mount', ['-t', 'tmpfs', '-o', 'size=3g,mode=0755', 'tmpfs', directory]);
    const network = await TestNetwork.create();
    const fleet = await Fleet.create(join(directory, 'fleet'), { address: network.address });
    await fleet.cli(['group', 'create', GROUP, '--poll', '1s', '--poll-active', '1s']);
    const world = new World(fleet, directory, network, root);
    try {
      for (const release of RELEASES) await world.#release(release);
      await world.#install();
    } catch (error) {
      await world.close();
      throw error;
    }
    return world;
  }

  async #release(options: ReleaseOptions): Promise<void> {
    const tree = join(this.directory, `tree-${options.version}`);
    mkdirSync(tree);
    writeFileSync(
      join(tree, 'run'),
      `#!/bin/sh\necho ${options.version} >/run/web-version\n${options.program}\n`,
      { mode: 0o755 },
    );
    const definition = join(this.directory, `${options.version}.toml`);
    writeFileSync(
      definition,
      `name = "web"
class = "web"
version = "${options.version}"
release = ${options.release}

[activation]
kind = "units"
units = ["web.service"]

[[health]]
name = "up"
kind = "unit"
unit = "web.service"
required = true
baseline = "must-pass"
intervalMs = 500
timeoutMs = 2000
successesNeeded = 2
failuresAllowed = 1

[trial]
soakMs = ${options.soakMs}
deadlineMs = ${options.deadlineMs}
maxBoots = 2
`,
    );
    const bundle = join(this.directory, `${options.version}.bundle`);
    await this.fleet.cli(['bundle', 'build', tree, '--definition', definition, '--out', bundle]);
    await this.fleet.cli(['release', 'import', bundle]);
  }

  /** A container with a bare Debian, not booted. */
  async bare(name: string): Promise<Container> {
    this.#count += 1;
    const directory = join(this.directory, `c${this.#count}`);
    return await this.#container(name, this.#root, directory);
  }

  /** Installs the package once, in a container that runs, and keeps what that wrote as a layer. */
  async #install(): Promise<void> {
    const container = await this.bare(`sb-${process.pid}-installer`);
    await container.boot();
    copyFileSync(this.packageFile, join(container.root, 'srv/agent.deb'));
    await container.run('apt-get install -y --no-install-recommends /srv/agent.deb');
    process.stdout.write(await container.run(EXPOSURE));
    writeScenarioFiles(container.root);
    await container.run(
      'rm /srv/agent.deb && systemctl stop switchback-agent && rm -rf /var/lib/switchback/*',
    );
    await container.run('truncate -s 0 /etc/machine-id');
    this.#installed = await container.detach();
  }

  async #container(name: string, lower: string, directory: string): Promise<Container> {
    const container = await Container.create(name, lower, directory, await this.#network.join());
    this.#containers.push(container);
    return container;
  }

  /** A booted, enrolled host that runs 1.0.0. */
  async host(name: string): Promise<ManagedHost> {
    this.#count += 1;
    const directory = join(this.directory, `c${this.#count}`);
    const lower = `${this.#installed}:${this.#root}`;
    const container = await this.#container(name, lower, directory);
    const host = new ManagedHost(container, this.fleet);
    try {
      await container.boot();
      await host.enrol(GROUP);
      await host.pin('1.0.0');
      await host.untilSettledOn('1.0.0');
    } catch (error) {
      const words = await container.journal();
      await container.remove();
      throw new Error(`${name} does not get to its first version\n${words}`, { cause: error });
    }
    return host;
  }

  async close(): Promise<void> {
    for (const container of this.#containers) await container.remove();
    await this.fleet.stop();
    await this.#network.close();
    await run('umount', [this.directory]);
    await rm(this.directory, { recursive: true, force: true });
  }
}

function packageFile(name: string): string {
  const wanted = `_${arch() === 'arm64' ? 'arm64' : 'amd64'}.deb`;
  const directory = join(REPOSITORY, 'dist/deb');
  const found = readdirSync(directory).find(
    (file) => file.startsWith(`${name}_`) && file.endsWith(wanted),
  );
  if (found === undefined) throw new Error(`no package ${name} in dist/deb: npm run package`);
  return join(directory, found);
}

/** Settings of the host and the unit of its service: what an operator writes. Short times, so that scenarios are short. */
function writeScenarioFiles(root: string): void {
  const put = (path: string, text: string): void => {
    mkdirSync(join(root, path, '..'), { recursive: true });
    writeFileSync(join(root, path), text);
  };
  put(
    'etc/switchback/config.d/10-host.toml',
    `[host]
class = "web"
[poll]
interval_ms = 1000
min_interval_ms = 200
first_spread_ms = 0
[guard]
heartbeat_interval_ms = 1000
heartbeat_lost_ms = 8000
`,
  );
  put(
    'etc/systemd/system/web.service',
    `[Service]
ExecStart=/opt/switchback/current/run
[Install]
WantedBy=multi-user.target
`,
  );
  mkdirSync(join(root, 'etc/systemd/system/multi-user.target.wants'), { recursive: true });
  put('etc/systemd/system/switchback-agent.service.d/fast.conf', '[Service]\nRestartSec=1\n');
  put(
    'etc/systemd/system/switchback-guard.timer.d/fast.conf',
    '[Timer]\nOnBootSec=\nOnUnitInactiveSec=\nOnBootSec=1s\nOnUnitInactiveSec=1s\nAccuracySec=100ms\n',
  );
}
