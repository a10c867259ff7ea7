/** One scenario of port-faults.ts, in a process of its own: `NUMBER DEPTH ONE_IN SEED`. Prints what it found as JSON. */
import { explore } from '#/test/support/sim-host/explore.ts';
import { scenarioCases } from '#/test/support/sim-host/scenarios.ts';

const [number = 0, depth = 1, oneIn = 1, seed = 1] = process.argv.slice(2).map(Number);
const one = (await scenarioCases())[number];
if (one === undefined) throw new Error(`there is no scenario ${number}`);
// From the second crash on all are tried: what is drawn is after which first ones.
const explored = await explore({ ...one, depth, oneIn, seed });
process.stdout.write(`${JSON.stringify({ title: one.title, ...explored })}\n`);
