/** What the heavy part needs of the process that it runs in. */
import { setTimeout as sleepFor } from 'node:timers/promises';
import { Problem } from '#/protocol/errors.ts';
import type { InstallSettings } from './settings.ts';
import type { RequestHeaders, Source } from './source.ts';
import { createFileSource } from './source-file.ts';
import { createHttpSource } from './source-http.ts';

export interface TaskWorld {
  /** Time that passes, in ms, from any start. */
  readonly nowMs: () => number;
  readonly unit: () => number;
  readonly sleep: (ms: number, signal: AbortSignal) => Promise<void>;
  readonly source: (url: string, settings: InstallSettings) => Source;
  /** worker.ts, or its built form beside the built agent. */
  readonly workerEntry: URL;
  /** True for root: owners are set and compared. */
  readonly setOwners: boolean;
}

/** The real world. */
export function processWorld(requestHeaders: RequestHeaders | null): TaskWorld {
  const nowMs = (): number => performance.now();
  return {
    nowMs,
    unit: () => Math.random(),
    async sleep(ms, signal) {
      try {
        await sleepFor(ms, undefined, { signal });
      } catch (error) {
        signal.throwIfAborted();
        throw error;
      }
    },
    source(url, settings) {
      const { protocol } = new URL(url);
      if (protocol === 'file:') return createFileSource(url);
      if (protocol === 'http:' || protocol === 'https:') {
        return createHttpSource({ url, settings, requestHeaders, nowMs });
      }
      throw new Problem('E_USAGE', `a source is http, https or file, not ${protocol}`);
    },
    workerEntry: entryBeside('worker'),
    setOwners: process.getuid?.() === 0,
  };
}

/** An entry of this folder: the source in development, `install-<name>.mjs` beside the built agent. */
export function entryBeside(name: 'worker' | 'child'): URL {
  const isSource = import.meta.url.endsWith('.ts');
  return new URL(isSource ? `./${name}.ts` : `./install-${name}.mjs`, import.meta.url);
}
