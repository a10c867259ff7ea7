/** What a host is told at its poll: derived from its lease, its halts and its orders. */
import type { Assignment } from '#/protocol/documents.ts';
import { artifactOf, type ConfigId, configOf } from '#/protocol/ids.ts';
import { desiredOf, versionOf } from './desired.ts';
import { type Attempt, type Host, isActive, openAttempt, type Scene } from './model.ts';

const WHY_MAX = 1024;

/** The assignment of one host, without its generation (the engine numbers it when it differs from the last one). */
export function assignmentOf(scene: Scene, host: Host): Omit<Assignment, 'generation'> {
  const attempt = openAttempt(host);
  const release = attempt === null ? undefined : scene.releases.get(artifactOf(attempt.artifactId));
  const rollout = scene.rollout;
  const isStopped =
    attempt !== null &&
    attempt.rolloutId !== null &&
    isActive(rollout) &&
    rollout.id === attempt.rolloutId &&
    rollout.state === 'halted';
  const halted = scene.fleetHalt !== null || scene.groupHalt !== null || isStopped;
  return {
    group: host.group,
    offer:
      attempt === null || release === undefined
        ? null
        : {
            artifactId: release.artifactId,
            ...configIn(attempt.artifactId),
            rolloutId: attempt.rolloutId,
            sources: [...release.sources],
            retryGeneration: attempt.retryGeneration,
          },
    halted,
    rollbackGeneration: host.rollbackGeneration,
    why: whyOf(scene, host, isStopped).slice(0, WHY_MAX),
  };
}

function configIn(version: Attempt['artifactId']): { readonly configId?: ConfigId } {
  const configId = configOf(version);
  return configId === null ? {} : { configId };
}

function whyOf(scene: Scene, host: Host, isStopped: boolean): string {
  const desired = desiredOf(scene, host);
  const attempt = openAttempt(host);
  if (isStopped)
    return `rollout ${scene.rollout?.id ?? ''} is halted: ${scene.rollout?.words ?? ''}`;
  if (desired.blocked !== null) return desired.blocked;
  if (desired.isReached && attempt === null)
    return `runs ${versionOf(scene, host.running)}, as it should`;
  if (attempt !== null) return `offered ${versionOf(scene, attempt.artifactId)}`;
  if (desired.target === null) return desired.steps.at(-1)?.words ?? 'nothing is pinned';
  return `waits to be offered ${versionOf(scene, desired.target.artifactId)}`;
}
