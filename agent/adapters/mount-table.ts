/** The table of mounts, /proc/self/mountinfo. Pure. */

export interface MountEntry {
  /** `major:minor`; `0:…` for file systems without a device of their own. */
  readonly deviceNumber: string;
  readonly mountPoint: string;
  readonly kind: string;
  readonly source: string;
}

/** The mounts of a table, in the order in which they were made; what lies on top of another comes later. */
export function mountTable(table: string): readonly MountEntry[] {
  const entries: MountEntry[] = [];
  for (const line of table.split('\n')) {
    const [front = '', back = ''] = line.split(' - ', 2);
    const fields = front.split(' ');
    const [kind = '', source = ''] = back.split(' ');
    const [, , deviceNumber = '', , mountPoint = ''] = fields;
    if (mountPoint === '') continue;
    entries.push({
      deviceNumber,
      mountPoint: unescaped(mountPoint),
      kind,
      source: unescaped(source),
    });
  }
  return entries;
}

/** Blank, tab, newline and backslash stand there in octal. */
function unescaped(text: string): string {
  return text.replaceAll(/\\([0-7]{3})/g, (_, octal: string) =>
    String.fromCharCode(Number.parseInt(octal, 8)),
  );
}
