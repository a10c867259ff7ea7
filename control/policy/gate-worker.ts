/** The thread in which rules run: it is ended when they take too long. */
import { parentPort, workerData } from 'node:worker_threads';
import type { Question } from './judge.ts';
import { READY } from './ready.ts';
import { evaluate } from './rules.ts';

parentPort?.postMessage(READY);
for (const { rules, facts } of workerData as readonly Question[]) {
  parentPort?.postMessage(rules.map((rule) => evaluate(rule, facts)));
}
