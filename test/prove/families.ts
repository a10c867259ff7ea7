/** All families, quick ones first. */
import { bootLoaderView } from './boot-loader.ts';
import type { Family } from './family.ts';
import { endurance } from './endurance.ts';
import { fleetHistories } from './fleet-histories.ts';
import { bitRot } from './flips.ts';
import { links } from './links.ts';
import { machine } from './machine.ts';
import { networkFaults } from './network-faults.ts';
import { doubleFaults, singleFaults, tripleFaults } from './port-faults.ts';
import { controlCuts, powerCuts } from './power-cuts.ts';
import { syscallErrors, syscallKills } from './syscalls.ts';

export const families: readonly Family[] = [
  machine,
  bitRot,
  bootLoaderView,
  singleFaults,
  doubleFaults,
  tripleFaults,
  networkFaults,
  links,
  endurance,
  fleetHistories,
  syscallKills,
  syscallErrors,
  controlCuts,
  powerCuts,
];
