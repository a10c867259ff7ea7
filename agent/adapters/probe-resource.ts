/** The health check of disk, memory and load. */
import { statfs } from 'node:fs/promises';
import { availableParallelism, loadavg } from 'node:os';
import type { HealthCheck } from '#/bundle/manifest.ts';
import type { Sight } from './probe-contract.ts';

type ResourceCheck = Extract<HealthCheck, { kind: 'resource' }>;

/** Compares what the host has with the limits that the check names. */
export async function probeResource(check: ResourceCheck, diskPath: string): Promise<Sight> {
  const seen: string[] = [];
  let ok = true;
  const compare = (text: string, holds: boolean): void => {
    seen.push(holds ? text : `${text}: not enough`);
    ok &&= holds;
  };
  if (check.minDiskFreeBytes !== undefined) {
    const space = await statfs(diskPath);
    const free = space.bavail * space.bsize;
    compare(
      `${free} bytes free in ${diskPath} of ${check.minDiskFreeBytes}`,
      free >= check.minDiskFreeBytes,
    );
  }
  if (check.minMemoryFreeBytes !== undefined) {
    const { mem } = await import('systeminformation');
    const { available } = await mem();
    compare(
      `${available} bytes of memory available of ${check.minMemoryFreeBytes}`,
      available >= check.minMemoryFreeBytes,
    );
  }
  if (check.maxLoadPerCorePercent !== undefined) {
    // Not systeminformation's avgLoad, which is the largest of the loads over 1, 5 and 15 minutes.
    const percent = Math.round(((loadavg()[0] ?? 0) / availableParallelism()) * 100);
    seen.push(`load ${percent} % per core, at most ${check.maxLoadPerCorePercent} %`);
    ok &&= percent <= check.maxLoadPerCorePercent;
  }
  return { ok, detail: seen.length === 0 ? 'the check names no limit' : seen.join(', ') };
}
