/** Who carries the heavy part of an installation out: the install child, as shipped, or this process, for tests. */
import { type ChildClient, createChildClient } from './child-client.ts';
import { runDownload } from './download.ts';
import { runReadBack } from './read-back-task.ts';
import type { InstallSettings } from './settings.ts';
import type { RequestHeaders } from './source.ts';
import { processWorld } from './world.ts';

export interface ClientOptions {
  /** Headers of each request to a source; null: none. */
  readonly requestHeaders: RequestHeaders | null;
  /** `child`: the heavy part in its own process, as shipped. `here`: in this process, for tests. */
  readonly run: 'child' | 'here';
  readonly settings: Pick<InstallSettings, 'priority'>;
  /** Hears the pid of each child. */
  readonly onChild?: (pid: number) => void;
}

export function createClient({
  requestHeaders,
  run,
  onChild,
  settings: { priority },
}: ClientOptions): ChildClient {
  if (run === 'child') {
    return createChildClient({
      priority,
      requestHeaders,
      ...(onChild === undefined ? {} : { onStart: onChild }),
    });
  }
  const world = processWorld(requestHeaders);
  return {
    download: (task, onProgress, signal) => runDownload(task, world, onProgress, signal),
    readBack: (task, onProgress, signal) => runReadBack(task, world, onProgress, signal),
  };
}
