/** Prometheus text. Names are listed in docs/reference/metrics.md. */
import { activeRollouts } from '#/control/engine/fleet.ts';
import type { HostCondition } from '#/protocol/host.ts';
import type { Services } from './handler.ts';

interface Metric {
  readonly name: string;
  readonly type: 'gauge' | 'counter';
  readonly help: string;
  readonly samples: readonly (readonly [labels: string, value: number])[];
}

/** The metrics of control at one moment. */
export function metricsText(
  services: Services,
  hosts: Record<HostCondition, number>,
  nowMs: number,
): string {
  const { engine } = services.desk;
  const { fleet, load } = engine;
  const counters = [...services.gauge.counters];
  const metrics: readonly Metric[] = [
    {
      name: 'switchback_hosts',
      type: 'gauge',
      help: 'Hosts by condition.',
      samples: Object.entries(hosts).map(
        ([condition, n]) => [`condition="${condition}"`, n] as const,
      ),
    },
    {
      name: 'switchback_rollouts',
      type: 'gauge',
      help: 'Rollouts that are not over, by state.',
      samples: (['running', 'paused', 'halted'] as const).map(
        (state) =>
          [
            `state="${state}"`,
            activeRollouts(fleet).filter((r) => r.state === state).length,
          ] as const,
      ),
    },
    {
      name: 'switchback_halts',
      type: 'gauge',
      help: 'Halts in force.',
      samples: [['', fleet.halts.size]],
    },
    {
      name: 'switchback_shed_level',
      type: 'gauge',
      help: 'Level of load shedding, 0 to 3.',
      samples: [['', services.gauge.level]],
    },
    {
      name: 'switchback_polls_per_minute',
      type: 'gauge',
      help: 'Polls of the last minute.',
      samples: [['', services.gauge.pollsPerMinute]],
    },
    {
      name: 'switchback_changes_waiting',
      type: 'gauge',
      help: 'Changes that wait for the store.',
      samples: [['', load.waiting]],
    },
    {
      name: 'switchback_store_up',
      type: 'gauge',
      help: '1 while the store takes writes.',
      samples: [['', load.isStoreDown ? 0 : 1]],
    },
    {
      name: 'switchback_epoch',
      type: 'gauge',
      help: 'Epoch of control; raised by a restore.',
      samples: [['', fleet.epoch]],
    },
    {
      name: 'switchback_event_streams',
      type: 'gauge',
      help: 'Open event streams.',
      samples: [['', services.hub.size]],
    },
    {
      name: 'switchback_time_seconds',
      type: 'gauge',
      help: 'Clock of control.',
      samples: [['', nowMs / 1000]],
    },
    {
      name: 'switchback_requests_total',
      type: 'counter',
      help: 'Requests by route and status.',
      samples: counters.map(([labels, n]) => [labels, n] as const),
    },
    {
      name: 'switchback_refusals_total',
      type: 'counter',
      help: 'Refused requests by route and error code.',
      samples: [...services.gauge.refusals],
    },
  ];
  return metrics
    .map(({ name, type, help, samples }) =>
      [
        `# HELP ${name} ${help}`,
        `# TYPE ${name} ${type}`,
        ...samples.map(
          ([labels, value]) => `${name}${labels === '' ? '' : `{${labels}}`} ${value}`,
        ),
      ].join('\n'),
    )
    .join('\n')
    .concat('\n');
}
