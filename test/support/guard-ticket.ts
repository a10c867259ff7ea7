/** A ticket as the guard finds it: NEW is on trial, OLD is the way back. */
import { readFileSync } from 'node:fs';
import type { Ticket } from '#/agent/core/ticket.ts';
import type { ArtifactId } from '#/protocol/ids.ts';

export const OLD = 'a'.repeat(64) as ArtifactId;
export const NEW = 'b'.repeat(64) as ArtifactId;
export const BOOT = readFileSync('/proc/sys/kernel/random/boot_id', 'latin1').trim();

export const monotonicMs = (): number => Number(process.hrtime.bigint() / 1_000_000n);

/** `targetIdentity`: the directory of NEW. */
export function openTicket(targetIdentity: string, change: Partial<Ticket> = {}): Ticket {
  return {
    schema: 'switchback.ticket/1',
    attempt: 'c'.repeat(32),
    kind: 'install',
    rolloutId: null,
    artifactId: NEW,
    version: '2.0',
    class: 'web',
    release: 2,
    retryGeneration: 0,
    targetSlot: NEW,
    targetIdentity,
    rollbackSlot: OLD,
    rollbackArtifact: OLD,
    state: 'open',
    reason: null,
    maxBoots: 2,
    bootsUsed: 0,
    armBootId: BOOT,
    lastBootId: BOOT,
    deadlineRunMs: 1_000_000,
    clock: { runMs: 100_000, bootId: BOOT, monotonicMs: monotonicMs() },
    plan: {
      soakMs: 1,
      deadlineMs: 900_000,
      maxBoots: 2,
      control: 'offline-ok',
      oneWay: false,
      checks: [],
    },
    baselinePassed: ['http'],
    ...change,
  };
}
