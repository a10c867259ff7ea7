/** The ticket of a trial on partitions that was armed and not tried yet. */
import { TICKET_SCHEMA, type Ticket } from '#/agent/core/ticket.ts';
import type { ArtifactId } from '#/protocol/ids.ts';
import { partUuids } from './disk.ts';

export function ticketOf(slots: {
  readonly targetSlot: 'a' | 'b';
  readonly rollbackSlot: 'a' | 'b';
}): Ticket {
  return {
    schema: TICKET_SCHEMA,
    attempt: 'a'.repeat(32),
    kind: 'install',
    rolloutId: null,
    artifactId: '1'.repeat(64) as ArtifactId,
    version: '1.2.0',
    class: 'web',
    release: 7,
    retryGeneration: 0,
    ...slots,
    targetIdentity: partUuids[slots.targetSlot],
    rollbackArtifact: '0'.repeat(64) as ArtifactId,
    state: 'open',
    reason: null,
    maxBoots: 2,
    bootsUsed: 0,
    armBootId: 'b00',
    lastBootId: 'b00',
    deadlineRunMs: 600_000,
    clock: { runMs: 1, bootId: 'b00', monotonicMs: 1 },
    plan: {
      soakMs: 1,
      deadlineMs: 600_000,
      maxBoots: 2,
      control: 'offline-ok',
      oneWay: false,
      checks: [],
    },
    baselinePassed: [],
  };
}
