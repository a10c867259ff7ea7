/** What the agent and its install child say to each other over IPC (structured clone). */
import type { ProblemData } from './jobs.ts';
import type {
  DownloadOutcome,
  DownloadTask,
  ReadBackOutcome,
  ReadBackTask,
  TaskProgress,
} from './task.ts';

export type ToChild =
  | { readonly do: 'download'; readonly task: DownloadTask; readonly asksForHeaders: boolean }
  | { readonly do: 'readBack'; readonly task: ReadBackTask }
  | {
      readonly do: 'headers';
      readonly question: number;
      readonly headers: Readonly<Record<string, string>>;
    }
  | { readonly do: 'headersFailed'; readonly question: number; readonly problem: ProblemData }
  | { readonly do: 'abort' };

export type FromChild =
  | { readonly is: 'progress'; readonly progress: TaskProgress }
  /** The child wants the headers of a request: keys stay with the agent. */
  | {
      readonly is: 'headers';
      readonly question: number;
      readonly url: string;
      readonly refresh: boolean;
    }
  | { readonly is: 'downloaded'; readonly outcome: DownloadOutcome }
  | { readonly is: 'readBack'; readonly outcome: ReadBackOutcome }
  | { readonly is: 'failed'; readonly problem: ProblemData }
  | { readonly is: 'aborted' };
