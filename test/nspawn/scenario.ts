/** A scenario: what is done to a host, and what must be true in the end. */
import type { World } from './world.ts';

export interface Scenario {
  /** What goes wrong, and the number of the case where there is one. */
  readonly title: string;
  /** Throws what is not as it must be. */
  readonly run: (world: World, name: string) => Promise<void>;
}
