/** The medians of a run as an SVG: one panel per table, bars of wall time and of bytes moved. Pure. */

export interface ChartRow {
  readonly name: string;
  readonly wallS: number;
  readonly movedMb: number;
  readonly isOurs: boolean;
}
export interface ChartPanel {
  readonly title: string;
  readonly rows: readonly ChartRow[];
}

const WIDTH = 900;
const LABEL = 330;
const GAP = 40;
const BAR = (WIDTH - LABEL - 2 * GAP) / 2;
const ROW = 22;
const HEAD = 54;

const escaped = (text: string): string =>
  text.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;');

/** One panel below the other; ours in colour. */
export function chartOf(panels: readonly ChartPanel[], caption: string): string {
  let y = 0;
  const parts: string[] = [];
  for (const panel of panels) {
    parts.push(panelAt(panel, y));
    y += HEAD + panel.rows.length * ROW + 14;
  }
  parts.push(`<text x="8" y="${y + 14}" class="small">${escaped(caption)}</text>`);
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${y + 26}" role="img" aria-label="Benchmark results">
<style>
text { font: 12px system-ui, sans-serif; fill: #1f2328 }
.title { font-weight: 600; font-size: 14px } .small { font-size: 11px; fill: #57606a }
.ours { fill: #0969da } .peer { fill: #afb8c1 }
@media (prefers-color-scheme: dark) { text { fill: #e6edf3 } .small { fill: #9198a1 } .ours { fill: #4493f8 } .peer { fill: #59636e } }
</style>
${parts.join('\n')}
</svg>
`;
}

function panelAt({ title, rows }: ChartPanel, top: number): string {
  const second = LABEL + BAR + GAP;
  const lines = [
    `<text x="8" y="${top + 22}" class="title">${escaped(title)}</text>`,
    `<text x="${LABEL}" y="${top + 42}" class="small">seconds, shorter is better</text>`,
    `<text x="${second}" y="${top + 42}" class="small">MB moved</text>`,
  ];
  const longest = (of: (row: ChartRow) => number): number => Math.max(...rows.map(of), 1e-9);
  const [slowest, most] = [longest(({ wallS }) => wallS), longest(({ movedMb }) => movedMb)];
  for (const [i, { name, wallS, movedMb, isOurs }] of rows.entries()) {
    const y = top + HEAD + i * ROW;
    const bar = (x: number, value: number, max: number, digits: number): string => {
      const width = Math.max(1, (BAR - 46) * (value / max));
      return (
        `<rect x="${x}" y="${y - 4}" width="${width.toFixed(1)}" height="14" rx="2" class="${isOurs ? 'ours' : 'peer'}"/>` +
        `<text x="${(x + width + 5).toFixed(1)}" y="${y + 8}" class="small">${value.toFixed(digits)}</text>`
      );
    };
    lines.push(
      `<text x="8" y="${y + 8}">${escaped(name)}</text>`,
      bar(LABEL, wallS, slowest, 2),
      bar(second, movedMb, most, 1),
    );
  }
  return lines.join('\n');
}
