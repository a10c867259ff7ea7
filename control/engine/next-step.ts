/** What happens next to a host, or which command of an operator makes it go on. */
import { type Host, isActive, openAttempt, type Scene } from '#/control/core/model.ts';
import { PAUSED_WHY } from '#/protocol/documents.ts';
import type { HostWhy } from '#/protocol/host.ts';

/** `blocked` is `Desired.blocked`; times in wall milliseconds. */
export function nextOf(
  scene: Scene,
  host: Host,
  at: { blocked: string | null; isReached: boolean; online: boolean; nextPollMs: number | null },
): HostWhy['next'] {
  const attempt = openAttempt(host);
  if (!at.online) return { words: 'nothing, until the host is heard of again', atMs: null };
  if (attempt !== null && host.why.startsWith(PAUSED_WHY))
    return { words: 'nothing, until `switchback-agent resume` is run on the host', atMs: null };
  if (attempt !== null && attempt.phase === 'offered')
    return { words: 'the host takes the offer at its next poll', atMs: at.nextPollMs };
  if (attempt !== null)
    return { words: `the host reports what follows ${attempt.phase}`, atMs: null };
  if (at.blocked !== null)
    return { words: `nothing by itself; ${remedyOf(scene, host)}`, atMs: null };
  const rollout = scene.rollout;
  if (!at.isReached && isActive(rollout))
    return { words: `the rollout decides: ${rollout.words}`, atMs: null };
  if (at.isReached) return { words: 'nothing; it polls', atMs: at.nextPollMs };
  return { words: 'an offer, when a place in flight is free', atMs: null };
}

/** The command that takes away what keeps the host from being offered its version. */
function remedyOf(scene: Scene, host: Host): string {
  const { rollout, group } = scene;
  const name = host.labels['name'] ?? host.id;
  if (host.quarantine !== null)
    return `\`switchback host re-enrol ${name} --reason "…"\` gives it a new identity`;
  if (scene.fleetHalt !== null) return '`switchback halt --lift --reason "…"` ends the halt';
  if (scene.groupHalt !== null)
    return `\`switchback halt --lift --group ${group.name} --reason "…"\` ends the halt`;
  if (host.hold !== null) return `\`switchback host unhold ${name}\` ends the hold`;
  if (isActive(rollout) && rollout.state !== 'running')
    return `once the cause is gone \`switchback rollout resume ${group.name} --reason "…"\`, or pin another release`;
  return `\`switchback host retry ${name} --reason "…"\` lets it try again what failed, or pin another release`;
}
