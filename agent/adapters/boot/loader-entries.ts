/**
 * Entries of systemd-boot: their names, their text, and which of them the loader boots. Pure.
 * docs/specs/partitions.md, section 3; the rules of the choice are those of systemd-boot 252 and later.
 */
import { must } from '#/protocol/errors.ts';
import type { PartitionSlot } from './backend.ts';
import { checkedArguments } from './kernel-arguments.ts';

/** On the ESP, from its root. */
export const ENTRIES_PATH = '/loader/entries';
export const KERNELS_PATH = '/switchback';
const SORT_KEY = 'switchback';

export interface EntryName {
  readonly slot: PartitionSlot;
  /** The first 12 hex digits of the artifact id. */
  readonly digest: string;
  /** What entries are sorted by: higher is tried first. */
  readonly number: number;
  /** Null: good, without a counter. */
  readonly left: number | null;
}

/** What an entry starts, as it is kept beside the copied files. */
export interface BootSet {
  readonly slot: PartitionSlot;
  readonly digest: string;
  readonly version: string;
  readonly arguments: string;
  readonly kind: 'linux' | 'linux-initrd' | 'uki';
}

const NAME =
  /^switchback-([ab])-([0-9a-f]{12})-([1-9][0-9]{0,8})(?:\+([0-9]{1,4})(?:-[0-9]{1,4})?)?\.conf$/;

/** Null: not one of ours. */
export function parseEntryName(name: string): EntryName | null {
  const [, slot, digest, number, left] = NAME.exec(name) ?? [];
  if ((slot !== 'a' && slot !== 'b') || digest === undefined) return null;
  return { slot, digest, number: Number(number), left: left === undefined ? null : Number(left) };
}

export function entryName({ slot, digest, number, left }: EntryName): string {
  return `switchback-${slot}-${digest}-${number}${left === null ? '' : `+${left}`}.conf`;
}

/** Name of the directory of a set in KERNELS_PATH. */
export function setName({ slot, digest }: Pick<BootSet, 'slot' | 'digest'>): string {
  return `${slot}-${digest}`;
}

/** The text of an entry. Its last line makes it one, so that a part of it is none. */
export function entryText(set: BootSet, number: number, partUuid: string): string {
  const path = `${KERNELS_PATH}/${setName(set)}`;
  const start = {
    linux: [`linux ${path}/linux`],
    'linux-initrd': [`initrd ${path}/initrd`, `linux ${path}/linux`],
    uki: [`efi ${path}/uki.efi`],
  }[set.kind];
  return [
    `title switchback ${set.slot} ${set.version}`,
    `sort-key ${SORT_KEY}`,
    `version ${number}`,
    `options ${`root=PARTUUID=${partUuid} ro ${checkedArguments(set.arguments)}`.trim()}`,
    ...start,
    '',
  ].join('\n');
}

/** True when the loader takes the text for an entry and sorts it by the number of its name. */
export function isEntry(text: string, { number }: EntryName): boolean {
  const lines = text.split('\n');
  const isWhole = lines.at(-1) === '' && /^(?:linux|efi) \S+$/.test(lines.at(-2) ?? '');
  return isWhole && lines.includes(`version ${number}`) && lines.includes(`sort-key ${SORT_KEY}`);
}

/** The one that is booted next; null: none of ours. Out of tries is sorted last. */
export function chosenEntry(entries: readonly EntryName[]): EntryName | null {
  const isUsedUp = (entry: EntryName): number => (entry.left === 0 ? 1 : 0);
  const sorted = entries.toSorted((a, b) => isUsedUp(a) - isUsedUp(b) || b.number - a.number);
  return sorted[0] ?? null;
}

/** The file that tells how the entries of a set are made; written after the files it speaks of. */
export function setText(set: BootSet): string {
  must(!/[\n=]/.test(set.version), 'a version is one line');
  const lines = [
    'switchback-boot/1',
    `version=${set.version}`,
    `kind=${set.kind}`,
    `arguments=${checkedArguments(set.arguments)}`,
  ];
  return `${lines.join('\n')}\nend\n`;
}

/** Null: not a whole set. `name`: of its directory. */
export function parseSet(name: string, text: string): BootSet | null {
  const [, slot, digest] = /^([ab])-([0-9a-f]{12})$/.exec(name) ?? [];
  const found =
    /^switchback-boot\/1\nversion=(.*)\nkind=(linux|linux-initrd|uki)\narguments=(.*)\nend\n$/.exec(
      text,
    );
  if ((slot !== 'a' && slot !== 'b') || digest === undefined || found === null) return null;
  const [, version = '', kind, args = ''] = found;
  return { slot, digest, version, kind: kind as BootSet['kind'], arguments: args };
}
