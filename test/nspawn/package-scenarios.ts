/** What `apt` does: install, upgrade, remove, purge. */
import { copyFileSync, mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Container } from './container.ts';
import { ManagedHost } from './managed-host.ts';
import type { Scenario } from './scenario.ts';
import type { World } from './world.ts';

const INSTALL = 'apt-get install -y --no-install-recommends --reinstall /srv/agent.deb';
const PATHS = '/etc /usr /var /opt /run /root';
/** What is left after a purge, and docs/operate/install.md says so. */
const STAYS = [/^\/opt\/switchback(\/|$)/];
/** Of the test itself, and of apt. */
const OF_OTHERS =
  /^\/(?:root\/|run\/|var\/(?:log|cache|lib\/(?:apt|dpkg|systemd))\/|etc\/(?:systemd\/system\/web|machine-id|ld\.so)|usr\/share\/(?:man|fish|zsh|bash-completion)$)/;

function bringPackage(world: World, container: Container): void {
  copyFileSync(world.packageFile, join(container.root, 'srv/agent.deb'));
}

/** All paths, without those that change by themselves. */
async function listing(container: Container): Promise<ReadonlySet<string>> {
  const found = await container.run(`find ${PATHS} -xdev 2>/dev/null || true`);
  return new Set(found.split('\n').filter((path) => path !== '' && !OF_OTHERS.test(path)));
}

async function withHost(
  world: World,
  name: string,
  run: (host: ManagedHost) => Promise<void>,
): Promise<void> {
  const host = await world.host(name);
  try {
    bringPackage(world, host.container);
    await run(host);
  } catch (error) {
    throw new Error(await host.container.journal(), { cause: error });
  } finally {
    await host.remove();
  }
}

/** A Debian on which nothing of ours ever was, up to the purge. */
async function fromFreshToPurged(world: World, name: string): Promise<void> {
  const container = await world.bare(name);
  const host = new ManagedHost(container, world.fleet);
  try {
    await container.boot();
    const before = await listing(container);
    bringPackage(world, container);
    await container.run(INSTALL);
    await container.run(
      '! command -v node && systemctl is-active switchback-agent switchback-guard.timer',
    );
    const config = join(container.root, 'etc/switchback/config.d/10-host.toml');
    writeFileSync(
      config,
      '[host]\nclass = "web"\n[poll]\nfirst_spread_ms = 0\nmin_interval_ms = 200\n',
    );
    mkdirSync(join(container.root, 'etc/systemd/system'), { recursive: true });
    writeFileSync(
      join(container.root, 'etc/systemd/system/web.service'),
      '[Service]\nExecStart=/opt/switchback/current/run\n',
    );
    await host.enrol('web');
    await host.pin('1.0.0');
    await host.untilSettledOn('1.0.0');
    await host.pin('3.0.0');
    await host.untilSettledOn('3.0.0');
    // Everything that doctor calls broken would be a fault of the package.
    await container.run('switchback-agent doctor');
    await container.run(
      'apt-get purge -y --autoremove switchback-agent && systemctl daemon-reload',
    );
    await container.run('systemctl is-active web.service');
    const after = await listing(container);
    const left = [...after].filter(
      (path) => !before.has(path) && !STAYS.some((stays) => stays.test(path)),
    );
    if (left.length > 0) throw new Error(`purge left ${left.slice(0, 20).join(', ')}`);
    const missing = [...before].filter((path) => !after.has(path));
    if (missing.length > 0) throw new Error(`purge took ${missing.slice(0, 20).join(', ')}`);
  } catch (error) {
    throw new Error(await container.journal(), { cause: error });
  } finally {
    await container.remove();
  }
}

/** The server's package: nothing runs before an operator has made the keys, and a purge does not take them. */
async function controlPackage(world: World, name: string): Promise<void> {
  const container = await world.bare(name);
  const ask = `fetch('http://127.0.0.1:8420/healthz')`;
  const look = `${ask}.then((a) => process.exit(a.ok ? 0 : 1), () => process.exit(1))`;
  const once = `/usr/lib/switchback-control/node -e "${look}"`;
  const answers = `for i in 1 2 3 4 5 6 7 8 9 10; do ${once} && exit 0; sleep 1; done; exit 1`;
  try {
    await container.boot();
    copyFileSync(world.controlPackageFile, join(container.root, 'srv/control.deb'));
    await container.run('apt-get install -y --no-install-recommends /srv/control.deb');
    await container.run('! systemctl is-active switchback-control');
    const exposure = 'systemd-analyze security --no-pager switchback-control | tail -n 1';
    process.stdout.write(await container.run(exposure));
    await container.run(
      'runuser -u switchback-control -- switchback init --data /var/lib/switchback-control',
    );
    await container.run(`systemctl start switchback-control && (${answers})`);
    await container.run(
      'test "$(stat -c %U:%a /var/lib/switchback-control)" = switchback-control:700',
    );
    await container.reboot();
    await container.run(answers);
    await container.run('apt-get purge -y switchback-control');
    await container.run(
      'test -s /var/lib/switchback-control/keys/root.json && ! ls /usr/lib/switchback-control',
    );
  } catch (error) {
    throw new Error(await container.journal(), { cause: error });
  } finally {
    await container.remove();
  }
}

export const packageScenarios: readonly Scenario[] = [
  {
    title:
      'a fresh Debian: apt install, a join text, managed; purge leaves the versions and nothing else',
    run: fromFreshToPurged,
  },
  {
    title:
      'control: nothing runs before init, it is back after a reboot, and purge leaves the keys',
    run: controlPackage,
  },
  {
    title:
      'the package is upgraded in the middle of a trial: the trial goes on, and the version is committed',
    run: (world, name) =>
      withHost(world, name, async (host) => {
        await host.pin('3.0.0');
        await host.untilOnTrial('3.0.0');
        await host.container.run(INSTALL);
        await host.untilSettledOn('3.0.0');
      }),
  },
  {
    title:
      'the package is removed in the middle of a trial: the host is left on the version before',
    run: (world, name) =>
      withHost(world, name, async (host) => {
        await host.pin('2.0.0');
        await host.untilOnTrial('2.0.0');
        await host.container.run('apt-get remove -y switchback-agent');
        await host.untilRuns('1.0.0');
        await host.container.run(INSTALL);
        await host.untilSettledOn('1.0.0');
        await host.untilReported('E_INTERRUPTED', /guard is being removed/);
      }),
  },
  {
    title: 'the package is removed and installed again: nothing is lost, nothing is started anew',
    run: (world, name) =>
      withHost(world, name, async (host) => {
        const started = 'systemctl show -P InvocationID web.service';
        const before = await host.container.run(started);
        await host.container.run('apt-get remove -y switchback-agent');
        await host.container.run('systemctl is-active web.service');
        await host.container.run(INSTALL);
        await host.untilSettledOn('1.0.0');
        if ((await host.container.run(started)) !== before)
          throw new Error('web.service was restarted');
        await host.pin('3.0.0');
        await host.untilSettledOn('3.0.0');
      }),
  },
];
