/**
 * The floor of the simulated host, as a file of its own (the real one is in the trust state): the highest committed release
 * per class. It never goes down (I8).
 */
import * as v from 'valibot';
import type { FilePort } from '#/agent/ports.ts';
import { stateFile, type StateFormat } from '#/agent/adapters/state-file.ts';

const format: StateFormat<Readonly<Record<string, number>>> = {
  kind: 'floor',
  version: 1,
  limitBytes: 64 * 1024,
  schema: v.record(v.string(), v.pipe(v.number(), v.safeInteger(), v.minValue(0))),
};

export interface Floor {
  /** Highest committed release of the class; 0 when none was. */
  of(hostClass: string): number;
  /** Durable on return; a lower release than the floor changes nothing. */
  raise(hostClass: string, release: number): Promise<void>;
}

/** Reads the floor at `path`. E_STATE when it is damaged: the caller decides what stands in for it. */
export async function openFloor(files: FilePort, path: string): Promise<Floor> {
  const file = stateFile(files, path, format);
  let floors = (await file.read()) ?? {};
  const of = (hostClass: string): number => floors[hostClass] ?? 0;
  return {
    of,
    async raise(hostClass, release) {
      if (release <= of(hostClass)) return;
      const raised = { ...floors, [hostClass]: release };
      await file.write(raised);
      floors = raised;
    },
  };
}
