/** All families, quick ones first. */
import type { Family } from './family.ts';
import { powerCuts } from './power-cuts.ts';
import { syscallErrors, syscallKills } from './syscalls.ts';

export const families: readonly Family[] = [powerCuts, syscallKills, syscallErrors];
