/** T10: every state that the machine of the agent can reach, under any disturbances of host, guard, boot loader and world. */
import { explore } from '#/test/model/agent/explore.ts';
import { kinds, natures, realMachine } from '#/test/model/agent/world.ts';
import type { Family, Finding } from './family.ts';

export const machine: Family = {
  name: 'machine',
  what: 'every reachable state of the agent machine, any one disturbance (--long: any two)',
  run({ scale }) {
    const findings: Finding[] = [];
    let cases = 0;
    let states = 0;
    for (const kind of kinds) {
      for (const nature of natures) {
        const disturbances = scale === 'long' ? 2 : 1;
        const found = explore({ kind, nature, disturbances }, realMachine);
        cases += 1;
        states += found.states;
        if (found.counterexample === null) continue;
        const { message, trace } = found.counterexample;
        const text = `${kind}, ${nature}: ${message}: ${trace.join(' > ')}`;
        // Liveness is an invariant of its own there; the others are of safety.
        const isLiveness = /ends|stuck|bounded/.test(message);
        findings.push({ fault: isLiveness ? 'stuck' : 'wrong', text });
      }
    }
    return Promise.resolve({ cases, states, findings });
  },
};
