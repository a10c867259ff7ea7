/**
 * Explores every scenario with this many disturbances (two by default, about a million states) and prints a line for each:
 * `node test/model/agent/all-scenarios.ts 2`. Ends with 1 when a counterexample was found.
 */
import { explore } from './explore.ts';
import { kinds, natures, realMachine } from './world.ts';

const disturbances = Number(process.argv[2] ?? 2);
let states = 0;
for (const kind of kinds) {
  for (const nature of natures) {
    const found = explore({ kind, nature, disturbances }, realMachine);
    states += found.states;
    process.stdout.write(`${kind}, ${nature}: ${found.states} states, ${found.edges} edges\n`);
    const { counterexample } = found;
    if (counterexample === null) continue;
    process.stdout.write(`${counterexample.message}\n  ${counterexample.trace.join('\n  ')}\n`);
    process.exitCode = 1;
  }
}
process.stdout.write(`${states} states\n`);
