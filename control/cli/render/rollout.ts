/** A rollout on the screen: its stages as bars, and what changed since it was last looked at. Pure. */
import { renderTable, type TableStyle } from '#/control/cli/render/table.ts';
import { harmless, type Tone } from '#/control/cli/render/text.ts';
import type { HostView } from '#/protocol/host.ts';
import type {
  Counts,
  RolloutState,
  RolloutView,
  StageState,
  StageView,
} from '#/protocol/rollout.ts';

export function stateTone(state: RolloutState): Tone {
  switch (state) {
    case 'running':
      return 'bold';
    case 'paused':
      return 'warn';
    case 'halted':
      return 'bad';
    case 'done':
      return 'good';
    case 'aborted':
    case 'superseded':
      return 'dim';
  }
}

function stageTone(state: StageState): Tone {
  switch (state) {
    case 'pending':
      return 'dim';
    case 'open':
    case 'soaking':
      return 'bold';
    case 'passed':
      return 'good';
  }
}

const BAR = 20;

/** `#` confirmed, `x` failed or overdue, `>` under way, `.` not begun. Every host that failed is seen: no share rounds to nothing. */
export function stageBar(counts: Counts): string {
  const members = Math.max(1, counts.members);
  const cells = (hosts: number): number =>
    hosts === 0 ? 0 : Math.max(1, Math.floor((hosts / members) * BAR));
  const bad = Math.min(BAR, cells(counts.failed + counts.overdue));
  const moving = Math.min(BAR - bad, cells(counts.inFlight));
  const done = Math.min(BAR - bad - moving, Math.round((counts.confirmed / members) * BAR));
  const rest = BAR - bad - moving - done;
  return `${'#'.repeat(done)}${'>'.repeat(moving)}${'x'.repeat(bad)}${'.'.repeat(rest)}`;
}

/** One line per stage. */
export function renderStages(
  rollout: { readonly stages: readonly StageView[] },
  style: TableStyle,
): string {
  return renderTable(
    rollout.stages,
    [
      { title: 'STAGE', value: (stage) => stage.name },
      { title: 'STATE', value: (stage) => stage.state, tone: (stage) => stageTone(stage.state) },
      { title: '', value: (stage) => stageBar(stage.counts) },
      {
        title: 'CONFIRMED',
        value: (stage) => `${stage.counts.confirmed}/${stage.counts.members}`,
        align: 'right',
      },
      {
        title: 'FAILED',
        value: (stage) => String(stage.counts.failed + stage.counts.overdue),
        align: 'right',
        tone: (stage) => (stage.counts.failed + stage.counts.overdue > 0 ? 'bad' : 'plain'),
      },
      { title: 'WAITS FOR', value: (stage) => stage.words, flexible: true },
    ],
    style,
    'no stages',
  );
}

/** One thing that changed between two looks; also the JSON line of `rollout watch --json`. */
export interface RolloutChange {
  readonly event: 'state' | 'stage' | 'host';
  readonly rollout: string;
  readonly subject: string;
  readonly from: string | null;
  readonly to: string;
  readonly words: string;
}

/** What differs between two looks at a rollout and its hosts; the first look (null) differs in everything. */
export function changesBetween(
  before: { readonly rollout: RolloutView; readonly hosts: readonly HostView[] } | null,
  after: { readonly rollout: RolloutView; readonly hosts: readonly HostView[] },
): readonly RolloutChange[] {
  const { rollout } = after;
  const changes: RolloutChange[] = [];
  const note = (
    event: RolloutChange['event'],
    subject: string,
    from: string | null,
    to: string,
    words: string,
  ): void => {
    if (from !== to) changes.push({ event, rollout: rollout.id, subject, from, to, words });
  };
  note('state', rollout.group, before?.rollout.state ?? null, rollout.state, rollout.words);
  for (const [at, stage] of rollout.stages.entries()) {
    note('stage', stage.name, before?.rollout.stages[at]?.state ?? null, stage.state, stage.words);
  }
  const earlier = new Map(before?.hosts.map((host) => [host.id, host]));
  for (const host of after.hosts) {
    const old = earlier.get(host.id);
    const name = host.labels['name'] ?? host.id;
    note('host', name, old === undefined ? null : shownState(old), shownState(host), host.why);
  }
  return changes;
}

/** The word for where a host is in this rollout. */
export function shownState(host: HostView): string {
  return host.phase ?? host.condition;
}

/** A change as one line of text. */
export function changeLine(change: RolloutChange, at: string): string {
  const from = change.from === null ? '' : `${change.from} -> `;
  const words = change.words === '' ? '' : `: ${change.words}`;
  return `${at} ${change.event} ${harmless(`${change.subject} ${from}${change.to}${words}`)}\n`;
}
