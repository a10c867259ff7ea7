/**
 * Entry of the install child: one task, then the end, so that all its memory goes back. It dies with the agent: when the
 * channel closes there is nobody to report to, and the next run resumes what is on the disk.
 */
import { Problem } from '#/protocol/errors.ts';
import type { FromChild, ToChild } from './child-messages.ts';
import { runDownload } from './download.ts';
import { problemData, problemFrom } from './jobs.ts';
import { runReadBack } from './read-back-task.ts';
import type { RequestHeaders } from './source.ts';
import type { TaskProgress } from './task.ts';
import { processWorld } from './world.ts';

type Answered = (answer: Readonly<Record<string, string>> | Problem) => void;

const abort = new AbortController();
const questions = new Map<number, Answered>();
let asked = 0;

function say(message: FromChild): Promise<void> {
  return new Promise((resolve) => {
    if (process.send === undefined) resolve();
    else process.send(message, () => resolve());
  });
}

const askForHeaders: RequestHeaders = async ({ url }, refresh) => {
  asked += 1;
  const question = asked;
  const answer = new Promise<Readonly<Record<string, string>> | Problem>((resolve) => {
    questions.set(question, resolve);
  });
  await say({ is: 'headers', question, url, refresh });
  const headers = await answer;
  if (headers instanceof Problem) throw headers;
  return headers;
};

function answered(question: number, answer: Readonly<Record<string, string>> | Problem): void {
  questions.get(question)?.(answer);
  questions.delete(question);
}

async function perform(message: ToChild): Promise<void> {
  const onProgress = (progress: TaskProgress): void => void say({ is: 'progress', progress });
  try {
    if (message.do === 'download') {
      const world = processWorld(message.asksForHeaders ? askForHeaders : null);
      const outcome = await runDownload(message.task, world, onProgress, abort.signal);
      await say({ is: 'downloaded', outcome });
    } else if (message.do === 'readBack') {
      const outcome = await runReadBack(message.task, processWorld(null), onProgress, abort.signal);
      await say({ is: 'readBack', outcome });
    }
  } catch (error) {
    const problem = problemData(error);
    if (abort.signal.aborted) await say({ is: 'aborted' });
    else if (problem === null) throw error;
    else await say({ is: 'failed', problem });
  }
  process.exit(0);
}

process.on('disconnect', () => process.exit(0));
// The agent says when to stop; a signal to the whole process group must not cut the conversation with it.
process.on('SIGTERM', () => abort.abort(new Error('ended by SIGTERM')));
process.on('SIGINT', () => abort.abort(new Error('ended by SIGINT')));
process.on('message', (message: ToChild) => {
  switch (message.do) {
    case 'download':
    case 'readBack':
      void perform(message);
      return;
    case 'headers':
      answered(message.question, message.headers);
      return;
    case 'headersFailed':
      answered(message.question, problemFrom(message.problem));
      return;
    case 'abort':
      abort.abort(new Error('aborted by the agent'));
  }
});
