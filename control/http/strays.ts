/**
 * Polls of boots that were superseded. A request may be under way for a minute and more, in a proxy or while control stands
 * still, and its host may have rebooted and reported meanwhile: one such poll proves nothing, the next one does (F75).
 */
import type { HostId } from '#/protocol/ids.ts';

/** No request is under way for so long. */
const LATE_MS = 120_000;
/** When such a host is told to come again: after that time. */
export const STRAY_RETRY_SECONDS = 150;
const MAX_HOSTS = 10_000;

export interface Strays {
  /** True when this boot polled before, too long ago for this to be another late copy. */
  isPersistent(host: HostId, boot: string, nowMs: number): boolean;
}

/** Kept in memory only: control that was restarted sees the next two. */
export function createStrays(): Strays {
  const first = new Map<HostId, { readonly boot: string; readonly atMs: number }>();
  return {
    isPersistent(host, boot, nowMs) {
      const known = first.get(host);
      if (known?.boot === boot) return nowMs - known.atMs > LATE_MS;
      if (first.size >= MAX_HOSTS) first.clear();
      first.set(host, { boot, atMs: nowMs });
      return false;
    },
  };
}
