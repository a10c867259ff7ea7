/**
 * Several sources of one bundle: the best is asked first, one that fails is penalised and rests for a while, one that fails
 * for good is given up (F7, F8, F82, D09). Time and randomness are arguments, so every schedule can be tested.
 */
import { isProblem, Problem } from '#/protocol/errors.ts';
import type { InstallSettings } from './settings.ts';
import type { Source } from './source.ts';

/** A refusal (wrong bundle, 404, bad certificate) is asked for once more, in case it was a moment of maintenance. */
const REFUSALS_ALLOWED = 2;
/** Damaged content weighs more than a lost connection: another source is preferred for the rest of the download. */
const PENALTY_DAMAGED = 10;

export type SourceSettings = Pick<
  InstallSettings,
  'attemptsPerSource' | 'backoffMs' | 'backoffMaxMs' | 'retryAfterMaxMs'
>;

interface Standing {
  readonly source: Source;
  penalty: number;
  failuresInRow: number;
  refusals: number;
  notBeforeMs: number;
  last: Problem | null;
  givenUp: boolean;
}

export interface SourceFailure {
  readonly url: string;
  readonly code: string;
}

export class SourceSet {
  readonly #standings: readonly Standing[];
  readonly #settings: SourceSettings;
  readonly #unit: () => number;

  /** `unit`: a random number in [0, 1), for the jitter of the pauses. */
  constructor(sources: readonly Source[], settings: SourceSettings, unit: () => number) {
    this.#settings = settings;
    this.#unit = unit;
    this.#standings = sources.map((source) => ({
      source,
      penalty: 0,
      failuresInRow: 0,
      refusals: 0,
      notBeforeMs: 0,
      last: null,
      givenUp: false,
    }));
  }

  /** The source to ask next and how long to wait before. Throws the last problem once all are given up. */
  pick(nowMs: number): { readonly source: Source; readonly waitMs: number } {
    const usable = this.#standings.filter(({ givenUp }) => !givenUp);
    const byWait = usable.toSorted(
      (a, b) =>
        Math.max(0, a.notBeforeMs - nowMs) - Math.max(0, b.notBeforeMs - nowMs) ||
        a.penalty - b.penalty,
    );
    const best = byWait[0];
    if (best === undefined) throw this.#exhausted();
    return { source: best.source, waitMs: Math.max(0, best.notBeforeMs - nowMs) };
  }

  /** New, verified bytes came from the source. */
  delivered(source: Source): void {
    const standing = this.#of(source);
    standing.failuresInRow = 0;
    standing.notBeforeMs = 0;
  }

  failed(source: Source, problem: Problem, nowMs: number): void {
    const standing = this.#of(source);
    const { backoffMs, backoffMaxMs, attemptsPerSource, retryAfterMaxMs } = this.#settings;
    const isSameIncident = nowMs < standing.notBeforeMs && !isProblem(problem, 'E_CHUNK');
    standing.last = problem;
    // Connections that fail together, because the server went away, are one failure.
    if (isSameIncident) return;
    standing.failuresInRow += 1;
    standing.penalty += isProblem(problem, 'E_CHUNK') ? PENALTY_DAMAGED : 1;
    if (isRefusal(problem)) standing.refusals += 1;
    const retryAfterMs = problem.details['retryAfterMs'];
    const asked = typeof retryAfterMs === 'number' ? retryAfterMs : 0;
    const backoff = Math.min(backoffMaxMs, backoffMs * 2 ** (standing.failuresInRow - 1));
    standing.notBeforeMs = nowMs + Math.max(asked, backoff * (0.5 + this.#unit() / 2));
    standing.givenUp =
      // The same file gives the same bytes: nobody repairs it while we wait.
      source.describe().kind === 'file' ||
      standing.failuresInRow >= attemptsPerSource ||
      standing.refusals >= REFUSALS_ALLOWED ||
      asked > retryAfterMaxMs ||
      isProblem(problem, ...HOPELESS);
  }

  failures(): SourceFailure[] {
    return this.#standings.flatMap(({ source, last }) =>
      last === null ? [] : [{ url: source.describe().url, code: last.code }],
    );
  }

  get size(): number {
    return this.#standings.length;
  }

  async close(): Promise<void> {
    await Promise.all(this.#standings.map(({ source }) => source.close()));
  }

  #of(source: Source): Standing {
    const standing = this.#standings.find((candidate) => candidate.source === source);
    if (standing === undefined) throw new Error('a source of another set');
    return standing;
  }

  /** The problem of the source that came furthest, with those of the others in its details. */
  #exhausted(): Problem {
    const [best] = this.#standings
      .filter(({ last }) => last !== null)
      .toSorted((a, b) => a.penalty - b.penalty);
    if (best?.last == null) return new Problem('E_USAGE', 'no source is given');
    const { code, message, details } = best.last;
    const failures = this.failures().map(({ url, code: each }) => `${url} ${each}`);
    return new Problem(code, message, { ...details, sources: failures }, { cause: best.last });
  }
}

/** Asking the same source again cannot help: what it sent is what the signed manifest names, or it never will. */
const HOPELESS = [
  'E_REDIRECT',
  'E_ENCODING',
  'E_TLS',
  'E_ARTIFACT',
  'E_SCHEMA',
  'E_HASH',
  'E_SIZE',
  'E_PATH',
  'E_MODE',
] as const;

function isRefusal(problem: Problem): boolean {
  const { status } = problem.details;
  return (
    typeof status === 'number' && status >= 400 && status < 500 && status !== 429 && status !== 408
  );
}
