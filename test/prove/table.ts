/** Prints rows under their headings: numbers to the right, everything else to the left. */
export function printTable(heads: readonly string[], rows: readonly (readonly string[])[]): void {
  const widths = heads.map((head, at) =>
    Math.max(head.length, ...rows.map((row) => row[at]?.length ?? 0)),
  );
  const isNumber = (cell: string | undefined): boolean => /^[\d,.]+(?: s)?$/.test(cell ?? '');
  const numeric = new Set(heads.keys().filter((at) => rows.every((row) => isNumber(row[at]))));
  for (const row of [heads, ...rows]) {
    const cells = row.map((cell, at) => {
      const width = widths[at] ?? 0;
      return numeric.has(at) ? cell.padStart(width) : cell.padEnd(width);
    });
    process.stdout.write(`${cells.join('  ')}\n`);
  }
}
