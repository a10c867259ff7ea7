/** One family, as a process of main.ts: what to do comes as JSON, what was found goes back as messages. */
import { families } from './families.ts';
import type { Outcome, Scale } from './family.ts';

export interface FamilyOrder {
  readonly family: string;
  readonly seed: number;
  readonly scale: Scale;
  readonly match: string;
  /** dist/agent.mjs, for families that run it. */
  readonly agent: string | null;
}
export type FamilyMessage = { readonly say: string } | { readonly outcome: Outcome };

const { family, agent, ...options } = JSON.parse(process.argv[2] ?? '') as FamilyOrder;
// So that what ends with this process does, when it is interrupted.
for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => process.exit(1));
const send = (message: FamilyMessage): void => void process.send?.(message);
const found = families.find((one) => one.name === family);
if (found === undefined) throw new Error(`no family ${family}`);
try {
  const outcome = await found.run({
    ...options,
    say: (line) => send({ say: line }),
    agentProgram: agent ?? '',
  });
  send({ outcome });
} catch (error) {
  const text = error instanceof Error ? (error.stack ?? error.message) : String(error);
  send({ outcome: { cases: 0, states: 0, findings: [{ fault: 'stuck', text }] } });
}
process.disconnect?.();
