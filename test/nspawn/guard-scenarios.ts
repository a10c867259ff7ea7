/** What can happen to the agent and around it while a version is on trial; the guard brings the host to the right one. */
import type { ManagedHost } from './managed-host.ts';
import type { Scenario } from './scenario.ts';

/** Agent and everything that would start it again are out of the way. */
const agentAway = (host: ManagedHost): Promise<string> =>
  host.container.run('systemctl mask --runtime --now switchback-agent');
const agentBack = (host: ManagedHost): Promise<string> =>
  host.container.run(
    'systemctl unmask --runtime switchback-agent && systemctl restart switchback-agent',
  );
const agentPid = '$(systemctl show -P MainPID switchback-agent)';
/** Longer than the longest deadline, the heartbeat may be lost, and the guard needs to act. */
const BACK_WITHIN_MS = 90_000;

/** 2.0.0 is on trial; `fault` happens; the host comes back to 1.0.0; `repair`; the reason is told to control. */
function takenBack(
  title: string,
  fault: (host: ManagedHost) => Promise<unknown>,
  expected: {
    readonly version?: string;
    readonly code?: string;
    readonly words?: RegExp;
    readonly repair?: (host: ManagedHost) => Promise<unknown>;
    readonly before?: (host: ManagedHost) => Promise<unknown>;
  } = {},
): Scenario {
  return {
    title,
    async run(world, name) {
      const host = await world.host(name);
      try {
        await expected.before?.(host);
        const version = expected.version ?? '2.0.0';
        await host.pin(version);
        await host.untilOnTrial(version);
        await fault(host);
        await host.untilRuns('1.0.0', BACK_WITHIN_MS);
        await expected.repair?.(host);
        await host.untilSettledOn('1.0.0');
        await host.untilReported(expected.code ?? 'E_DEADLINE', expected.words ?? /sign of life/);
        // Denied: it is not tried again by itself.
        await host.staysOn('1.0.0', 4_000);
      } catch (error) {
        throw new Error(await host.container.journal(), { cause: error });
      } finally {
        await host.remove();
      }
    },
  };
}

/** 3.0.0 is on trial; `fault` happens, which says nothing about the version; it is committed all the same. */
function committedAllTheSame(
  title: string,
  fault: (host: ManagedHost) => Promise<unknown>,
): Scenario {
  return {
    title,
    async run(world, name) {
      const host = await world.host(name);
      try {
        await host.pin('3.0.0');
        await host.untilOnTrial('3.0.0');
        await fault(host);
        await host.untilSettledOn('3.0.0');
        await host.staysOn('3.0.0', 3_000);
      } catch (error) {
        throw new Error(await host.container.journal(), { cause: error });
      } finally {
        await host.remove();
      }
    },
  };
}

/** Resolves when a round of the guard has begun with that clock. */
const fakeClock = (offset: string): string =>
  [
    'mkdir -p /run/systemd/system/switchback-guard.service.d',
    'library=$(echo /usr/lib/*/faketime/libfaketime.so.1)',
    `printf '[Service]\\nEnvironment=LD_PRELOAD=%s FAKETIME=${offset}\\nExecStartPre=/bin/sh -c "date >/run/guard-date"\\n' "$library" >/run/systemd/system/switchback-guard.service.d/clock.conf`,
    'systemctl daemon-reload',
    'for _ in 1 2 3 4 5 6 7 8 9 10; do [ ! -s /run/guard-date ] || exit 0; sleep 1; done; exit 1',
  ].join(' && ');

export const guardScenarios: readonly Scenario[] = [
  committedAllTheSame('F50 the agent is killed once in a trial: systemd starts it again', (host) =>
    host.container.run(`kill -KILL ${agentPid}`),
  ),
  takenBack('F50 the agent is dead for good', agentAway, { repair: agentBack }),
  takenBack('F50 the agent hangs: the guard ends it, and it comes back by itself', (host) =>
    host.container.run(`kill -STOP ${agentPid}`),
  ),
  takenBack(
    'F50 the program of the agent is deleted',
    (host) =>
      host.container.run(
        'mv /usr/lib/switchback-agent /usr/lib/switchback-agent.gone && systemctl restart switchback-agent || true',
      ),
    {
      repair: (host) =>
        host.container.run('mv /usr/lib/switchback-agent.gone /usr/lib/switchback-agent'),
    },
  ),
  takenBack(
    'F50 the agent crashes at each start',
    (host) =>
      host.container.run(
        `cp /usr/lib/switchback-agent/agent.mjs /srv/ && echo 'throw new Error("crash")' >/usr/lib/switchback-agent/agent.mjs && kill -KILL ${agentPid}`,
      ),
    { repair: (host) => host.container.run('cp /srv/agent.mjs /usr/lib/switchback-agent/') },
  ),
  takenBack('F39 the deadline passes while the agent is stopped', agentAway, {
    before: (host) =>
      host.container.run(
        "sed -i 's/lost_ms = .*/lost_ms = 600000/' /etc/switchback/config.d/10-host.toml && systemctl restart switchback-agent",
      ),
    words: /deadline was/,
    repair: agentBack,
  }),
  takenBack(
    'F39 the deadline passes while the agent hangs, and its heartbeat is not yet lost',
    (host) => host.container.run(`kill -STOP ${agentPid}`),
    {
      before: (host) =>
        host.container.run(
          "sed -i 's/lost_ms = .*/lost_ms = 600000/' /etc/switchback/config.d/10-host.toml && systemctl restart switchback-agent",
        ),
      version: '2.5.0',
      words: /deadline was/,
    },
  ),
  takenBack(
    'F36 the clock jumps ten years ahead, and the agent is dead',
    async (host) => {
      await host.container.run(fakeClock('+10y'));
      await agentAway(host);
      await host.container.run(
        'touch -d "10 years" /var/lib/switchback/* /run/switchback/* && grep -q " $(date -d "10 years" +%Y)$" /run/guard-date',
      );
    },
    { repair: agentBack },
  ),
  takenBack(
    'F36 the clock falls back twenty years, and the agent is dead',
    async (host) => {
      await host.container.run(fakeClock('-20y'));
      await agentAway(host);
      await host.container.run('touch -d "20 years ago" /var/lib/switchback/* /run/switchback/*');
    },
    { repair: agentBack },
  ),
  takenBack(
    'F30 the state is read-only while the agent is dead: nothing is switched, and as soon as it can be, all is',
    async (host) => {
      const { container } = host;
      await container.run('mount --bind /var/lib/switchback /var/lib/switchback');
      await container.run('mount -o remount,bind,ro /var/lib/switchback');
      await agentAway(host);
      await host.staysOn('2.0.0', 20_000);
      await container.run('umount /var/lib/switchback');
    },
    { repair: agentBack },
  ),
  takenBack(
    'F29 the state is on a full disk, and the agent is dead: the guard takes the reserve',
    async (host) => {
      await agentAway(host);
      await host.container.try('dd if=/dev/zero of=/var/lib/switchback/.ballast bs=64k');
    },
    {
      before: (host) =>
        host.container.run(
          [
            'systemctl stop switchback-agent',
            'cp -a /var/lib/switchback /srv/state',
            'mount -t tmpfs -o size=24m,mode=0700 tmpfs /var/lib/switchback',
            'cp -a /srv/state/. /var/lib/switchback/',
            'systemctl start switchback-agent',
          ].join(' && '),
        ),
      async repair(host) {
        await host.container.run('rm /var/lib/switchback/.ballast');
        await agentBack(host);
      },
    },
  ),
  takenBack(
    'F12 the network is gone, and the agent is dead',
    async (host) => {
      await host.container.run('ip link set host0 down');
      await agentAway(host);
    },
    {
      async repair(host) {
        await host.container.run('ip link set host0 up');
        await agentBack(host);
      },
    },
  ),
  takenBack(
    'the guard itself is killed in the middle of its work: its next round does it',
    async (host) => {
      const { container } = host;
      await container.run(
        [
          'mkdir -p /run/systemd/system/web.service.d',
          "printf '[Service]\\nExecStopPost=/bin/sleep 6\\n' >/run/systemd/system/web.service.d/slow.conf",
          'systemctl daemon-reload',
        ].join(' && '),
      );
      await agentAway(host);
      await host.untilDisk('the guard has begun', (ticket) =>
        ticket.includes('\nstate=rolling-back\n'),
      );
      await container.try('systemctl kill -s KILL switchback-guard.service');
    },
    { repair: agentBack },
  ),
  {
    title: 'F57 the version ends after a moment: the agent goes back, the guard stays out of it',
    async run(world, name) {
      const host = await world.host(name);
      try {
        await host.pin('4.0.0');
        await host.untilReported('E_UNHEALTHY', /./);
        await host.untilSettledOn('1.0.0');
      } catch (error) {
        throw new Error(await host.container.journal(), { cause: error });
      } finally {
        await host.remove();
      }
    },
  },
  takenBack(
    'F57 the version fails its check: the agent goes back, the guard stays out of it',
    async (host) => host.container.run('systemctl stop web.service'),
    { code: 'E_UNHEALTHY', words: /./ },
  ),
];
