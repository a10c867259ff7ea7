/** Tables: one line per row, columns aligned, cut to the terminal where there is one and whole where there is none. */
import { cut, displayWidth, harmless, pad, type Tone } from './text.ts';

export interface Column<Row> {
  readonly title: string;
  readonly value: (row: Row) => string;
  readonly align?: 'left' | 'right';
  readonly tone?: (row: Row) => Tone;
  /** Gives way first when the terminal is narrow; columns without it are never cut below their title. */
  readonly flexible?: boolean;
}

export interface TableStyle {
  /** Width of the terminal; null: nothing is cut, so that `grep` sees everything. */
  readonly columns: number | null;
  readonly paint: (tone: Tone, text: string) => string;
}

const GAP = 2;
const FLEXIBLE_MIN = 8;

/** The table as text with a newline at the end; `empty` when there are no rows. Cells are made harmless. */
export function renderTable<Row>(
  rows: readonly Row[],
  columns: readonly Column<Row>[],
  style: TableStyle,
  empty: string,
): string {
  if (rows.length === 0) return `${style.paint('dim', empty)}\n`;
  const cells = rows.map((row) => columns.map((column) => harmless(column.value(row))));
  const wanted = columns.map((column, at) =>
    Math.max(displayWidth(column.title), ...cells.map((line) => displayWidth(line[at] ?? ''))),
  );
  const widths = style.columns === null ? wanted : fit(columns, wanted, style.columns);
  const line = (texts: readonly string[], tones: readonly Tone[]): string => {
    const last = texts.length - 1;
    return texts
      .map((text, at) => {
        const width = widths[at] ?? 0;
        const shown = cut(text, width);
        const align = columns[at]?.align ?? 'left';
        const padded = at === last && align === 'left' ? shown : pad(shown, width, align);
        return style.paint(tones[at] ?? 'plain', padded);
      })
      .join(' '.repeat(GAP))
      .trimEnd();
  };
  const head = line(
    columns.map((column) => column.title),
    columns.map((): Tone => 'bold'),
  );
  const body = rows.map((row, at) =>
    line(
      cells[at] ?? [],
      columns.map((column) => column.tone?.(row) ?? 'plain'),
    ),
  );
  return `${[head, ...body].join('\n')}\n`;
}

/** Takes the missing width from the flexible columns, widest first; the rest runs over the edge rather than lie. */
function fit<Row>(
  columns: readonly Column<Row>[],
  wanted: readonly number[],
  total: number,
): readonly number[] {
  const widths = [...wanted];
  const sum = (): number => widths.reduce((all, width) => all + width, GAP * (widths.length - 1));
  let missing = sum() - total;
  while (missing > 0) {
    let widest = -1;
    for (const [at, column] of columns.entries()) {
      const width = widths[at] ?? 0;
      if (column.flexible !== true || width <= FLEXIBLE_MIN) continue;
      if (widest === -1 || width > (widths[widest] ?? 0)) widest = at;
    }
    if (widest === -1) return widths;
    widths[widest] = (widths[widest] ?? 0) - 1;
    missing -= 1;
  }
  return widths;
}

/** `name  value` lines for the details of one thing. Values are made harmless. */
export function renderFields(
  fields: readonly (readonly [name: string, value: string, tone?: Tone])[],
  style: TableStyle,
): string {
  const width = Math.max(0, ...fields.map(([name]) => displayWidth(name)));
  return fields
    .map(([name, value, tone]) => {
      const shown = harmless(value);
      return `${style.paint('dim', pad(name, width, 'left'))}  ${style.paint(tone ?? 'plain', shown)}\n`;
    })
    .join('');
}
