/** Asks the rules, with a deadline from when their thread is ready: whatever happens to the thread, the answer is a list of results, one for each rule. */
import { Worker } from 'node:worker_threads';
import type { Facts } from './facts.ts';
import { READY } from './ready.ts';
import type { Rule, RuleResult } from './rules.ts';

const JUDGE_DEADLINE_MS = 2000;
/** Until the thread has loaded its code: that says nothing about the rules, and takes seconds on a busy machine. */
const START_LIMIT_MS = 30_000;
/** Megabytes that the rules may take. */
const HEAP_MB = 128;

export interface Question {
  readonly rules: readonly Rule[];
  readonly facts: Facts;
}

/** Results of the rules; all deny when they do not answer before the deadline (P02). Never throws. */
export async function judge(
  rules: readonly Rule[],
  facts: Facts,
  deadlineMs: number = JUDGE_DEADLINE_MS,
): Promise<readonly RuleResult[]> {
  const [results] = await judgeAll([{ rules, facts }], deadlineMs);
  return results ?? [];
}

/** The same for several questions, in one thread and before one deadline. */
export async function judgeAll(
  questions: readonly Question[],
  deadlineMs: number,
): Promise<readonly (readonly RuleResult[])[]> {
  // Beside this file, in the form that this file has: .ts in the source tree, .mjs when it is bundled.
  const ending = import.meta.url.endsWith('.ts') ? 'ts' : 'mjs';
  const worker = new Worker(new URL(`./gate-worker.${ending}`, import.meta.url), {
    workerData: questions,
    resourceLimits: { maxOldGenerationSizeMb: HEAP_MB },
  });
  const answers: (readonly RuleResult[])[] = [];
  let timer: NodeJS.Timeout | undefined;
  try {
    const why = await new Promise<string>((resolve) => {
      timer = setTimeout(() => resolve('the thread of the rules does not start'), START_LIMIT_MS);
      worker.on('message', (said: typeof READY | readonly RuleResult[]) => {
        if (said === READY) {
          clearTimeout(timer);
          timer = setTimeout(() => resolve(`no answer in ${deadlineMs} ms`), deadlineMs);
          return;
        }
        answers.push(said);
        if (answers.length === questions.length) resolve('');
      });
      worker.once('error', (error: unknown) => resolve(String(error).slice(0, 200)));
      worker.once('exit', () => resolve('the thread of the rules ended'));
    });
    return questions.map(({ rules }, at) => answers[at] ?? denials(rules, why));
  } finally {
    clearTimeout(timer);
    await worker.terminate();
  }
}

function denials(rules: readonly Rule[], why: string): readonly RuleResult[] {
  return rules.map(({ name, message }) => ({ name, isAllowed: false, why: `${message} (${why})` }));
}
