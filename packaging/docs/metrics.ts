/** docs/reference/metrics.md, from the tables of metrics. */
import { agentMetrics } from '#/agent/adapters/metrics.ts';

interface Row {
  readonly name: string;
  readonly type: string;
  readonly help: string;
}

/** The page: every metric with its type and meaning. */
export function metricsPage(): string {
  return ['# Metrics\n', intro, '## The agent\n', table(agentMetrics)].join('\n');
}

function table(rows: readonly Row[]): string {
  const lines = rows.map(({ name, type, help }) => `| \`${name}\` | ${type} | ${help} |`);
  return `| name | type | meaning |\n| --- | --- | --- |\n${lines.join('\n')}\n`;
}

const intro = `Generated from the tables in the sources; do not edit. Text format of Prometheus.
`;
