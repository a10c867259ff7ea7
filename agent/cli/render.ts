/** Text for people. */
import type { JournalEntry } from '#/agent/ports.ts';
import { bytesText } from '#/agent/core/words.ts';
import type { StatusView } from '#/agent/local-view.ts';

/** How the live slot differs from its listing. */
export interface DriftView {
  readonly artifactId: string | null;
  readonly entries: number;
  readonly differences: readonly { readonly path: string; readonly what: string }[];
}

const DIFFERENCES_SHOWN = 50;

/** Rows of `name  value`, the names padded. */
export function fields(rows: readonly (readonly [string, string])[]): string {
  const width = Math.max(...rows.map(([name]) => name.length), 0);
  return rows.map(([name, value]) => `${name.padEnd(width)}  ${value}\n`).join('');
}

export const shortId = (artifactId: string): string => artifactId.slice(0, 12);

export function statusText(view: StatusView): string {
  const { live, attempt, control, window, lastEnd } = view;
  const rows: [string, string][] = [
    ['state', view.step === null ? view.state : `${view.state} (${view.step})`],
    [
      'live',
      live === null ? 'nothing yet' : `${live.version ?? 'unknown'} ${shortId(live.artifactId)}`,
    ],
  ];
  if (view.previous !== null) rows.push(['previous', shortId(view.previous)]);
  if (view.boot !== null) rows.push(...bootRows(view.boot));
  if (attempt !== null) {
    rows.push([attempt.kind, `${attempt.version} ${shortId(attempt.artifactId)}`]);
    if (attempt.progress !== null) rows.push(['progress', progressText(attempt.progress)]);
    if (attempt.deadlineLeftMs !== null)
      rows.push(['deadline in', `${Math.round(attempt.deadlineLeftMs / 1000)} s`]);
    for (const check of attempt.checks)
      rows.push([`check ${check.name}`, `${check.passed ? 'passed' : 'open'} ${check.detail}`]);
  }
  if (lastEnd !== null)
    rows.push([
      'last attempt',
      `${lastEnd.phase}${lastEnd.code === null ? '' : ` ${lastEnd.code}`} ${lastEnd.at}`,
    ]);
  if (view.transfer !== null) rows.push(['last download', transferText(view.transfer)]);
  if (view.host !== null) rows.push(['host', `${view.host.id} in group ${view.host.group}`]);
  if (control !== null)
    rows.push([
      'control',
      `${control.url}, last contact ${control.lastContact ?? 'never'}, next poll in ${Math.round(control.nextPollMs / 1000)} s`,
    ]);
  if (!window.open) rows.push(['window', `closed, opens ${window.opensAt ?? 'never'}`]);
  if (view.waitingEvents > 0) rows.push(['not yet reported', `${view.waitingEvents} events`]);
  if (view.serviceRestarts > 0)
    rows.push(['service', `started again ${view.serviceRestarts} times`]);
  rows.push(['agent', `${view.agent.version}, pid ${view.agent.pid}`]);
  return `${fields(rows)}\n${view.why}\n`;
}

function bootRows(boot: NonNullable<StatusView['boot']>): [string, string][] {
  const rows = boot.slots.map(
    ({ slot, running, partUuid, device, sizeBytes }): [string, string] => {
      const where =
        device === null
          ? 'not there'
          : `${device}, ${bytesText(sizeBytes ?? 0)}, PARTUUID ${partUuid}`;
      const marks = [
        ...(running ? ['runs'] : []),
        ...(boot.default === slot ? ['default'] : []),
        ...(boot.trial?.slot === slot ? [`on trial, ${boot.trial.triesLeft} tries left`] : []),
        ...(boot.bad.includes(slot) ? ['not selectable'] : []),
      ];
      return [`slot ${slot}`, marks.length === 0 ? where : `${where} (${marks.join('; ')})`];
    },
  );
  return [...rows, ['boot loader', [boot.loader, ...boot.problems].join('; ')]];
}

function progressText(
  progress: NonNullable<NonNullable<StatusView['attempt']>['progress']>,
): string {
  const percent =
    progress.totalBytes === 0 ? 0 : Math.floor((100 * progress.doneBytes) / progress.totalBytes);
  return `${progress.phase} ${percent} %, ${bytesText(progress.fetchedBytes)} fetched, ${bytesText(progress.reusedBytes)} reused`;
}

function transferText(transfer: NonNullable<StatusView['transfer']>): string {
  const { way, whyNoPatch, fetchedBytes, reusedBytes, savedBytes } = transfer;
  const without = whyNoPatch === null ? '' : ` (no patch: ${whyNoPatch})`;
  return `by ${way}${without}, ${bytesText(fetchedBytes)} fetched, ${bytesText(reusedBytes)} reused, ${bytesText(savedBytes)} saved`;
}

/** One line that is drawn over itself. */
export function progressLine(view: StatusView): string {
  const { attempt } = view;
  const name = attempt === null ? '' : ` ${attempt.version}`;
  const progress =
    attempt?.progress === null || attempt === null ? '' : `  ${progressText(attempt.progress)}`;
  return `${view.state}${view.step === null ? '' : ` (${view.step})`}${name}${progress}`;
}

export function historyText(entries: readonly JournalEntry[]): string {
  return entries
    .map((entry) => {
      const attempt = 'attempt' in entry.state ? ` ${entry.state.attempt.offer.version}` : '';
      const reason =
        'reason' in entry.state
          ? `  ${entry.state.reason.code}: ${entry.state.reason.message}`
          : '';
      const where = entry.from === entry.to ? entry.to : `${entry.from} -> ${entry.to}`;
      return `${new Date(entry.wallMs).toISOString()}  ${where}${attempt}  (${entry.event})${reason}\n`;
    })
    .join('');
}

export function driftText(view: DriftView): string {
  if (view.artifactId === null) return 'nothing is live\n';
  if (view.differences.length === 0)
    return `${shortId(view.artifactId)}: ${view.entries} entries, all as signed\n`;
  const shown = view.differences.slice(0, DIFFERENCES_SHOWN);
  const more = view.differences.length - shown.length;
  return [
    `${shortId(view.artifactId)}: ${view.differences.length} differences in ${view.entries} entries\n`,
    ...shown.map(({ path, what }) => `  ${path}: ${what}\n`),
    ...(more > 0 ? [`  and ${more} more\n`] : []),
  ].join('');
}
