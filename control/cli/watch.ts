/** Looks at control again and again: drawn over itself on a terminal, what is new line by line anywhere else. */
import { createScreen } from '#/control/cli/render/screen.ts';
import { formatMoment, harmless } from '#/control/cli/render/text.ts';
import type { Session } from '#/control/cli/session.ts';
import { isProblem } from '#/protocol/errors.ts';

const LOOK_EVERY_MS = 1000;
/** Failed looks in a row before the watch ends: control may restart under it. */
const FAILED_LOOKS_MAX = 30;

export interface Watched<Look> {
  look(): Promise<Look>;
  /** The whole, for a terminal. */
  frame(look: Look): string;
  /** What is new since the look before it (null: this is the first), in whole lines; JSON with `--json`. */
  news(before: Look | null, look: Look): string;
  isOver(look: Look): boolean;
}

/**
 * Until it is over; the last look, or null when the operator ended the watch. @throws what a look throws, when control is away for
 * FAILED_LOOKS_MAX looks, or at once when another look would not help.
 */
export async function watch<Look>(session: Session, watched: Watched<Look>): Promise<Look | null> {
  const { context, json, style } = session;
  const isLive = !json && context.out.isTty;
  const screen = createScreen(context.out);
  let before: Look | null = null;
  let failedLooks = 0;
  let seenAtMs = context.now();
  try {
    while (!context.signal.aborted) {
      try {
        const look: Look = await watched.look();
        failedLooks = 0;
        seenAtMs = context.now();
        if (isLive) screen.draw(watched.frame(look));
        else context.out.write(watched.news(before, look));
        before = look;
        if (watched.isOver(look)) return look;
      } catch (error) {
        if (context.signal.aborted) return null;
        failedLooks += 1;
        const isTransient = isProblem(error) && error.kind === 'unavailable';
        if (!isTransient || failedLooks > FAILED_LOOKS_MAX) throw error;
        if (isLive && before !== null) {
          const since = `no answer from control since ${formatMoment(seenAtMs)}`;
          const why = harmless(error.message);
          screen.draw(`${style.paint('warn', since)}: ${why}\n\n${watched.frame(before)}`);
        }
      }
      await context.sleep(LOOK_EVERY_MS);
    }
    return null;
  } finally {
    screen.end();
  }
}
