/** A block of lines that is drawn over itself. Only for terminals. */
import type { Output } from '#/control/cli/context.ts';

export interface Screen {
  /** Replaces the block. Lines must not be wider than the terminal, or what is above is drawn over. */
  draw(text: string): void;
  /** Leaves the block where it is and shows the cursor again. */
  end(): void;
}

const HIDE_CURSOR = '\u001b[?25l';
const SHOW_CURSOR = '\u001b[?25h';

export function createScreen(out: Output): Screen {
  let linesDrawn = 0;
  let isHidden = false;
  return {
    draw(text) {
      const lines = text.split('\n').slice(0, -1);
      const hide = isHidden ? '' : HIDE_CURSOR;
      isHidden = true;
      const up = linesDrawn === 0 ? '' : `\u001b[${linesDrawn}A`;
      // Each line is cleared as it is written, and what is left of a longer block below: no flicker, no remains.
      const body = lines.map((line) => `${line}\u001b[K\n`).join('');
      out.write(`${hide}${up}\r${body}\u001b[J`);
      linesDrawn = lines.length;
    },
    end() {
      if (isHidden) out.write(SHOW_CURSOR);
      isHidden = false;
    },
  };
}
