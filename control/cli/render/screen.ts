/** A block of lines that is drawn over itself. Only for terminals. */
import type { Output } from '#/control/cli/context.ts';

export interface Screen {
  /** Replaces the block. What does not fit on the terminal is left out. */
  draw(text: string): void;
  /** Leaves the block where it is and gives the terminal back. */
  end(): void;
}

/** Without wrapping, a line that is too wide is clipped by the terminal instead of pushing the block down. */
const BEGIN = '\u001b[?25l\u001b[?7l';
const END = '\u001b[?7h\u001b[?25h';

export function createScreen(out: Output): Screen {
  let linesDrawn = 0;
  let isHidden = false;
  return {
    draw(text) {
      const lines = text
        .split('\n')
        .slice(0, -1)
        .slice(0, Math.max(1, out.rows - 1));
      const hide = isHidden ? '' : BEGIN;
      isHidden = true;
      const up = linesDrawn === 0 ? '' : `\u001b[${linesDrawn}A`;
      // Each line is cleared as it is written, and what is left of a longer block below: no flicker, no remains.
      const body = lines.map((line) => `${line}\u001b[K\n`).join('');
      out.write(`${hide}${up}\r${body}\u001b[J`);
      linesDrawn = lines.length;
    },
    end() {
      if (isHidden) out.write(END);
      isHidden = false;
    },
  };
}
