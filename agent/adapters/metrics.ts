/** Metrics of the agent in the text format of Prometheus. */

export interface MetricDefinition {
  readonly name: string;
  readonly type: 'gauge' | 'counter';
  readonly help: string;
}

/** Every metric of the agent; docs/reference/metrics.md is generated from this table. */
export const agentMetrics = [
  {
    name: 'switchback_agent_build_info',
    type: 'gauge',
    help: 'Always 1; the labels say which agent this is.',
  },
  {
    name: 'switchback_agent_last_contact_timestamp_seconds',
    type: 'gauge',
    help: 'When control answered last, seconds since 1970.',
  },
  {
    name: 'switchback_agent_trust_stale',
    type: 'gauge',
    help: '1 when the newest verified metadata has expired: control is silent, frozen, or holds this host back.',
  },
  {
    name: 'switchback_agent_trust_expires_timestamp_seconds',
    type: 'gauge',
    help: 'When the newest verified metadata expires, seconds since 1970.',
  },
  {
    name: 'switchback_agent_state_info',
    type: 'gauge',
    help: 'Always 1; the label says the state of the machine.',
  },
  {
    name: 'switchback_agent_state_since_timestamp_seconds',
    type: 'gauge',
    help: 'When that state was entered, seconds since 1970.',
  },
  {
    name: 'switchback_agent_live_info',
    type: 'gauge',
    help: 'Always 1; the labels say which version is live.',
  },
  {
    name: 'switchback_agent_attempts_total',
    type: 'counter',
    help: 'Ended attempts by their last phase, since the agent started.',
  },
  {
    name: 'switchback_agent_fetched_bytes_total',
    type: 'counter',
    help: 'Bytes of artifacts fetched, since the agent started.',
  },
  {
    name: 'switchback_agent_reused_bytes_total',
    type: 'counter',
    help: 'Bytes of artifacts that the host had already.',
  },
  {
    name: 'switchback_agent_service_restarts_total',
    type: 'counter',
    help: 'Starts of the supervised process after a death.',
  },
  {
    name: 'switchback_agent_outbox_events',
    type: 'gauge',
    help: 'Events that control has not acknowledged.',
  },
  { name: 'switchback_agent_resident_bytes', type: 'gauge', help: 'Resident memory of the agent.' },
] as const satisfies readonly MetricDefinition[];
export type MetricName = (typeof agentMetrics)[number]['name'];
export type Labels = Readonly<Record<string, string>>;

export interface Metrics {
  set(name: MetricName, value: number, labels?: Labels): void;
  add(name: MetricName, value: number, labels?: Labels): void;
  /** The metric has this one set of labels from now on: for the `_info` ones. */
  only(name: MetricName, labels: Labels): void;
  text(): string;
}

/** More series than this of one metric are a bug of ours, not of the reader. */
const SERIES_MAX = 64;

/** Metrics that start empty. */
export function createMetrics(): Metrics {
  const series = new Map<MetricName, Map<string, number>>();
  const of = (name: MetricName): Map<string, number> => {
    const found = series.get(name) ?? new Map<string, number>();
    series.set(name, found);
    return found;
  };
  const put = (name: MetricName, key: string, value: number): void => {
    const values = of(name);
    if (values.size < SERIES_MAX || values.has(key)) values.set(key, value);
  };
  return {
    set: (name, value, labels = {}) => put(name, labelText(labels), value),
    add: (name, value, labels = {}) => {
      const key = labelText(labels);
      put(name, key, (of(name).get(key) ?? 0) + value);
    },
    only: (name, labels) => {
      of(name).clear();
      put(name, labelText(labels), 1);
    },
    text: () =>
      agentMetrics
        .filter(({ name }) => series.has(name))
        .map(({ name, type, help }) => {
          const lines = [...of(name)].map(([labels, value]) => `${name}${labels} ${value}\n`);
          return `# HELP ${name} ${help}\n# TYPE ${name} ${type}\n${lines.join('')}`;
        })
        .join(''),
  };
}

function labelText(labels: Labels): string {
  const pairs = Object.entries(labels).map(([label, value]) => {
    const escaped = value.replaceAll('\\', '\\\\').replaceAll('"', '\\"').replaceAll('\n', '\\n');
    return `${label}="${escaped}"`;
  });
  return pairs.length === 0 ? '' : `{${pairs.join(',')}}`;
}
