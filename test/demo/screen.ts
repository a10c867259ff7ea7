/** What the demo prints: headings, steps with their time, and facts. */
import { styleText } from 'node:util';

const colour = process.stdout.isTTY && process.env['NO_COLOR'] === undefined;
const paint = (style: Parameters<typeof styleText>[0], text: string): string =>
  colour ? styleText(style, text) : text;

export function megabytes(bytes: number): string {
  return `${(bytes / 1e6).toFixed(1)} MB`;
}

export function seconds(ms: number): string {
  return ms < 1000 ? `${Math.round(ms)} ms` : `${(ms / 1000).toFixed(1)} s`;
}

export class Screen {
  readonly #startedAtMs = performance.now();

  act(title: string): void {
    process.stdout.write(`\n${paint('bold', title)}\n`);
  }

  /** A line with the time since the start before it. */
  line(text: string): void {
    const at = ((performance.now() - this.#startedAtMs) / 1000).toFixed(1).padStart(6);
    process.stdout.write(`${paint('dim', `${at}s`)}  ${text}\n`);
  }

  good(text: string): void {
    this.line(`${paint('green', '✓')} ${text}`);
  }

  bad(text: string): void {
    this.line(`${paint('yellow', '!')} ${text}`);
  }

  command(args: readonly string[]): void {
    this.line(paint('cyan', `$ ${args.join(' ')}`));
  }

  plain(text: string): void {
    process.stdout.write(`${text}\n`);
  }
}
