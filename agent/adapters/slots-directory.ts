/** Slots of a directory host. Layout: agent/install/layout.ts; order of steps: docs/specs/agent-machine.md, D1-D15. */
import type { FilePort, Slots } from '#/agent/ports.ts';

/** What a file system has left. */
export interface Space {
  readonly freeBytes: number;
  /** null where the file system does not count inodes. */
  readonly freeInodes: number | null;
}

export interface DirectorySlotsOptions {
  /** Directory that holds releases/, current and previous. */
  readonly root: string;
  /** State directory of the agent; the records live in its `slots/`. */
  readonly stateDirectory: string;
  readonly files: FilePort;
  /** Of the file system of a path: statfs, or the simulation's. */
  readonly space: (path: string) => Promise<Space>;
  /** Paths below `root` at which something is mounted. */
  readonly mountsBelow: (path: string) => Promise<readonly string[]>;
  /** Kept free at all times. */
  readonly reserveBytes: number;
  readonly reserveInodes: number;
}

export type CreateDirectorySlots = (options: DirectorySlotsOptions) => Slots;
