/** What has to hold on a simulated host: on every disk at any moment, and at every end. */
import { terminalPhases, type ReportEvent } from '#/protocol/documents.ts';
import type { VersionId } from '#/protocol/ids.ts';
import { isTemporaryName } from '#/agent/adapters/durable.ts';
import { decodeTicket } from '#/agent/adapters/ticket.ts';
import { listImage, type Image } from '#/test/support/sim-fs/image.ts';
import type { Run } from './sim-host.ts';
import type { Version } from './versions.ts';

/** The version that the link `current` leads to, or what is wrong with it; null when there is no link. */
export function liveVersion(image: Image, versions: readonly Version[]): Version | string | null {
  const found = listImage(image);
  const target = found.get('/app/current');
  if (target === undefined) return null;
  const id = /^-> releases\/([0-9a-f]{64})$/.exec(target)?.[1];
  const version = versions.find((one) => one.artifactId === id);
  if (version === undefined) return `current is ${target}`;
  const content = found.get(`/app/releases/${version.artifactId}/app`);
  if (content === undefined)
    return `current leads to ${version.manifest.version}, which is not there`;
  if (content !== Buffer.from(version.content).toString('latin1')) {
    return `current leads to ${version.manifest.version}, which is not whole`;
  }
  return version;
}

/**
 * At any moment: what is live is whole, and the guard can read the ticket, with which it takes a trial back without the agent.
 * `mayBeNone`: there was nothing before, or a rollback leads to nothing.
 */
export function diskProblems(
  image: Image,
  versions: readonly Version[],
  mayBeNone: boolean,
): readonly string[] {
  const live = liveVersion(image, versions);
  if (typeof live === 'string') return [`I3 ${live}`];
  const ticket = listImage(image).get('/state/ticket');
  if (ticket !== undefined && decodeTicket(Buffer.from(ticket, 'latin1')) === null)
    return ['I11 the ticket cannot be read'];
  return live === null && !mayBeNone ? ['I1 nothing is live'] : [];
}

/** How often each attempt that control heard of has ended. */
export function attemptEnds(
  events: readonly ReportEvent[],
): ReadonlyMap<string, readonly string[]> {
  const ends = new Map<string, string[]>();
  for (const { attempt, phase } of events) {
    const list = ends.get(attempt) ?? [];
    if (terminalPhases.some((terminal) => terminal === phase)) list.push(phase);
    ends.set(attempt, list);
  }
  return ends;
}

/** At the end: one good version runs, each attempt ended once, and nothing is left lying about. */
export function endProblems(
  run: Run,
  versions: readonly Version[],
  allowed: readonly (VersionId | null)[],
): readonly string[] {
  const image = run.sim.image();
  const problems: string[] = [];
  const live = liveVersion(image, versions);
  if (typeof live === 'string') return [`I3 ${live}`];
  const id = live?.artifactId ?? null;
  if (!allowed.includes(id)) problems.push(`I9 ended on ${live?.manifest.version ?? 'nothing'}`);
  if (run.world.active !== id)
    problems.push(`I9 runs ${run.world.active?.slice(0, 8)}, live is ${id}`);
  if (run.state.at !== 'idle') problems.push(`ended in ${run.state.at}`);
  for (const [attempt, ends] of attemptEnds(run.world.received)) {
    if (ends.length !== 1)
      problems.push(`I5 attempt ${attempt.slice(0, 8)} ended ${ends.join(', ')}`);
  }
  const paths = [...listImage(image).keys()];
  if (paths.includes('/state/ticket')) problems.push('a ticket is left');
  const strays = paths.filter((path) => isTemporaryName(path.slice(path.lastIndexOf('/') + 1)));
  if (strays.length > 0) problems.push(`left behind: ${strays.join(' ')}`);
  return problems;
}
