/** Reboots and power cuts at each step of an update; afterwards exactly one version is right, and it runs. */
import type { ManagedHost } from './managed-host.ts';
import type { Scenario } from './scenario.ts';

/** Resolves with whether it was caught. */
type Moment = (host: ManagedHost) => Promise<boolean>;
/** Some moments last for milliseconds. */
const TRIES = 10;

function scenario(title: string, run: (host: ManagedHost) => Promise<unknown>): Scenario {
  return {
    title,
    async run(world, name) {
      const host = await world.host(name);
      try {
        await run(host);
      } catch (error) {
        throw new Error(await host.container.journal(), { cause: error });
      } finally {
        await host.remove();
      }
    },
  };
}

/** Power is cut at that moment of the update to 3.0.0; the host boots, goes on by itself, and ends on it. */
const cutAt = (title: string, moment: Moment): Scenario =>
  scenario(title, async (host) => {
    await host.pin('3.0.0');
    for (let tries = 1; !(await moment(host)); tries += 1) {
      if (tries === TRIES) throw new Error(`not caught in ${TRIES} updates`);
      await host.untilSettledOn('3.0.0');
      await host.pin('1.0.0');
      await host.untilSettledOn('1.0.0');
      await host.pin('3.0.0');
    }
    await host.container.cutPower();
    await host.container.boot();
    await host.untilSettledOn('3.0.0');
    await host.staysOn('3.0.0', 3_000);
  });

const isOpen = (ticket: string): boolean => ticket.includes('\nstate=open\n');
const targetOf = (ticket: string): string => /\ntarget_slot=(.*)\n/.exec(ticket)?.[1] ?? '?';

export const powerScenarios: readonly Scenario[] = [
  cutAt('F31 power cut when the trial is armed and nothing is switched', (host) =>
    host.untilDisk(
      'armed',
      (ticket, linked) => isOpen(ticket) && linked !== targetOf(ticket),
      (ticket, linked) => isOpen(ticket) && linked === targetOf(ticket),
    ),
  ),
  cutAt('F31 power cut at the moment of the switch', (host) =>
    host.untilDisk('switched', (ticket, linked) => isOpen(ticket) && linked === targetOf(ticket)),
  ),
  cutAt('F40 power cut in a trial', async (host) => {
    await host.untilOnTrial('3.0.0');
    return true;
  }),
  cutAt('F32 power cut at the moment of the commit', (host) => {
    let hasOpened = false;
    return host.untilDisk(
      'committed',
      (ticket) => ticket.includes('\nstate=committed\n'),
      (ticket) => {
        hasOpened ||= isOpen(ticket);
        return hasOpened && ticket === '';
      },
    );
  }),
  scenario('F31 power cut at the moment of the rollback', async (host) => {
    await host.pin('2.0.0');
    await host.untilOnTrial('2.0.0');
    await host.container.run('systemctl stop web.service');
    await host.untilDisk('rolling back', (ticket) => ticket.includes('\nstate=rolling-back\n'));
    await host.container.cutPower();
    await host.container.boot();
    await host.untilSettledOn('1.0.0');
    await host.untilReported('E_UNHEALTHY', /./);
  }),
  scenario('F40 a reboot in the middle of a trial: the trial goes on', async (host) => {
    await host.pin('3.0.0');
    await host.untilOnTrial('3.0.0');
    await host.container.reboot();
    await host.untilSettledOn('3.0.0');
  }),
  scenario(
    'F41 boots of a trial with no agent at all: taken back before the services start',
    async (host) => {
      const { container } = host;
      await host.pin('2.0.0');
      await host.untilOnTrial('2.0.0');
      await container.run(
        'systemctl mask switchback-agent && systemctl disable --now switchback-guard.timer',
      );
      await container.run('systemctl kill -s KILL switchback-agent');
      for (let boot = 0; boot < 3; boot += 1) {
        await container.cutPower();
        await container.boot();
      }
      await host.untilRuns('1.0.0');
      await container.run(
        'systemctl unmask switchback-agent && systemctl enable --now switchback-guard.timer && systemctl start switchback-agent',
      );
      await host.untilSettledOn('1.0.0');
      await host.untilReported('E_TRIAL_BOOTS', /boots/);
    },
  ),
  scenario(
    'F50 the agent is gone from the disk, and the host boots with its trial',
    async (host) => {
      const { container } = host;
      await host.pin('2.0.0');
      await host.untilOnTrial('2.0.0');
      await container.run('mv /usr/lib/switchback-agent /usr/lib/switchback-agent.gone');
      await container.cutPower();
      await container.boot();
      await host.untilRuns('1.0.0', 90_000);
      await container.run('mv /usr/lib/switchback-agent.gone /usr/lib/switchback-agent');
      await host.untilSettledOn('1.0.0');
      await host.untilReported('E_DEADLINE', /sign of life|deadline was/);
    },
  ),
];
