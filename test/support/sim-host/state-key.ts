/**
 * When two states of a host after a crash are the same to its agent. What the agent never decides by is left out: wall clocks,
 * readings of the run clock (only how much of a deadline is left, in steps), random names (they count by the order in which they
 * turn up), sequence numbers, counters of operations, older records of the journal, what a torn file holds, and what is
 * in temporary files, which a start removes unread. docs/decisions/0072-states-that-are-the-same.md says why each may be left out.
 */
import { hash } from 'node:crypto';
import { crc32 } from 'node:zlib';
import { isTemporaryName } from '#/agent/adapters/durable.ts';
import { readFrames } from '#/agent/adapters/journal.ts';
import { terminalPhases } from '#/protocol/documents.ts';
import { hex32 } from '#/agent/adapters/state-file.ts';
import { decodeTicket } from '#/agent/adapters/ticket.ts';
import { ROOT, type Inode, type Node } from '#/test/support/sim-fs/image.ts';
import type { Alike, CrashState, PersistenceModel } from '#/test/support/sim-fs/crash-states.ts';
import type { World } from './sim-host.ts';

/** Steps in which the rest of a deadline counts, up to where it is far longer than what any recovery does within it. */
const DEADLINE_STEP_MS = 10_000;
const AMPLE_MS = 30_000;
/** Durations of a plan; every other number of milliseconds is the reading of a clock. */
const PLANNED = /^(?:timeout|interval|soak|deadline|startAfter|stopTimeout)Ms$/;

/** Phases that control of the scenarios acts on, or that a check counts; the others only pass through the outbox. */
const telling: ReadonlySet<string> = new Set([...terminalPhases, 'downloading']);

/** For crash-states.ts: what never comes to count in a key, so that it need not be formed. */
export function alikeFor(isLast: boolean): Alike {
  return { isMoot: isTemporaryName, isPresenceMoot: isLast, meaning: textOfFile };
}

/**
 * One short string per state; equal strings, equal future. `isLast`: no further crash follows, so what a power cut could still
 * take back does not count, nor what a start removes unread.
 */
export function stateKey(state: CrashState, model: PersistenceModel, isLast: boolean): string {
  const world = state.world as World;
  const parts = [model === 'kill' ? 'kill' : 'power', ...worldParts(world)];
  const paths = new Map<Inode, string>();
  const files: string[] = [];
  const outbox: string[] = [];
  const walk = (directory: Inode, path: string): void => {
    paths.set(directory, path);
    for (const [name, inode] of state.image.entries.get(directory) ?? []) {
      const node = state.image.nodes.get(inode);
      if (node === undefined) throw new Error(`entry ${path}/${name} without a node`);
      if (isTemporaryName(name) && node.kind === 'file') {
        if (!isLast) files.push(`${path}/${name}`);
      } else if (path === '/state/outbox' && name !== 'sequence') {
        outbox.push(`${name.slice(0, 12)} ${textOf(node, name)}`);
      } else {
        files.push(`${path}/${name} ${contentOf(node, name, world)}`);
      }
      if (node.kind === 'directory') walk(inode, `${path}/${name}`);
    }
  };
  walk(ROOT, '');
  // The order of events counts, their numbers do not; those that control has already only make it hear them again.
  const waiting = outbox.sort().map((event) => event.slice(12));
  const isHeard = (event: string): boolean => world.received.some(({ id }) => event.includes(id));
  parts.push(...new Set(waiting.map((event) => (isHeard(event) ? 'heard before' : event))));
  parts.push(...files.sort());
  if (model === 'kill' && !isLast) parts.push(...unsyncedParts(state, paths, world));
  return keyOf(parts.join('\0'), model === 'kill' ? `boot-${world.boot}` : null);
}

/** Most states have the very text of one shortly before. */
const keys = new Map<string, string>();
const MAX_KEYS = 20_000;

function keyOf(text: string, now: string | null): string {
  const whole = `${now}\0${text}`;
  const known = keys.get(whole);
  if (known !== undefined) return known;
  if (keys.size >= MAX_KEYS) keys.clear();
  const key = hash('sha1', named(text, now), 'base64');
  keys.set(whole, key);
  return key;
}

const worlds = new WeakMap<World, readonly string[]>();
function worldParts(world: World): readonly string[] {
  const known = worlds.get(world);
  if (known !== undefined) return known;
  const heard = world.received
    .filter(({ phase }) => telling.has(phase))
    .map(({ attempt, phase, code }) => `${attempt} ${phase} ${code}`);
  const parts = [`active ${world.active}`, short(heard.join('\n'))];
  worlds.set(world, parts);
  return parts;
}

/** What could still be taken back: of each entry its versions, of each file what is durable of it. */
function unsyncedParts(
  { image, unsynced }: CrashState,
  paths: ReadonlyMap<Inode, string>,
  world: World,
): readonly string[] {
  const contentAs = (inode: Inode | null, name: string): string => {
    const node = inode === null ? undefined : unsynced.nodes.get(inode);
    if (node === undefined) return '-';
    return isTemporaryName(name) ? 'temporary' : contentOf(node, name, world);
  };
  const entries = unsynced.entries.map(({ directory, name, durable, versions }) => {
    const path = paths.get(directory) ?? '?';
    const all = [durable, ...versions].map((inode) => contentAs(inode, name));
    return `entry ${path}/${path === '/state/outbox' ? 'event' : name} ${all.join(' ')}`;
  });
  // A file that no name leads to, now or after a power cut, is gone for every program.
  const names = new Map<Inode | null, string>();
  for (const listed of image.entries.values()) {
    for (const [name, inode] of listed) names.set(inode, name);
  }
  for (const { name, durable, versions } of unsynced.entries) {
    for (const inode of [durable, ...versions]) names.set(inode, name);
  }
  const files = [...unsynced.files].flatMap(([inode, { durable, pending }]) => {
    const name = names.get(inode);
    if (name === undefined) return [];
    const kept = isTemporaryName(name) ? 'temporary' : textOfFile(durable, name);
    return [`file ${kept} ${pending.length}`];
  });
  return [...new Set(entries.sort()), ...files.sort()];
}

function contentOf(node: Node, name: string, world: World): string {
  const text = textOf(node, name);
  if (name !== 'sequence' || node.kind !== 'file') return text;
  const number = Number(/\n(\d+)\n/.exec(text)?.[1] ?? Number.NaN);
  return `sequence ${Number.isNaN(number) ? text : Math.sign(number - world.ackSeq)}`;
}

const numbers = new Map<string, number>();
const RANDOM_NAME = /\b[0-9a-f]{32}\b|\bboot-\d+\b/g;

/** A number for the text without its random names, and those: short, for most texts come again and again. */
function short(text: string): string {
  const names: string[] = [];
  const rest = text.replaceAll(RANDOM_NAME, (name) => {
    names.push(name);
    return '@';
  });
  const number = numbers.get(rest) ?? numbers.size;
  numbers.set(rest, number);
  return `${number}:${names.join(',')}`;
}

/** How a file is read: the agent tells by its name. */
type Reader = 'journal' | 'ticket' | 'sequence' | 'event' | 'other';
function readerOf(name: string): Reader {
  if (name === 'journal' || name === 'ticket' || name === 'sequence') return name;
  return /^\d{12}-[0-9a-f]{32}\.json$/.test(name) ? 'event' : 'other';
}

function textOf(node: Node, name: string): string {
  if (node.kind === 'directory') return 'directory';
  if (node.kind === 'link') return `-> ${node.target}`;
  return textOfFile(node.bytes, name);
}

const texts = new WeakMap<Uint8Array, { readonly reader: Reader; readonly text: string }>();

/** What the agent reads from a file of that name, without clocks; random names are still in it. */
function textOfFile(bytes: Uint8Array, name: string): string {
  const reader = readerOf(name);
  const known = texts.get(bytes);
  if (known?.reader === reader) return known.text;
  const read = readAs(bytes, reader);
  const text = reader === 'sequence' ? read : short(read);
  texts.set(bytes, { reader, text });
  return text;
}

function readAs(bytes: Uint8Array, reader: Reader): string {
  if (reader === 'journal') return journalText(bytes);
  if (reader === 'ticket') return ticketText(bytes);
  const raw = Buffer.from(bytes).toString('latin1');
  const header = /^switchback\.[a-z-]+\/\d+ ([0-9a-f]{8}) (\d+)\n/.exec(raw);
  if (header === null) return withoutClocks(raw);
  const body = bytes.subarray(header[0].length, header[0].length + Number(header[2]));
  const isWhole = bytes.byteLength === header[0].length + Number(header[2]) + 1;
  if (!isWhole || hex32(crc32(body)) !== header[1]) return 'damaged';
  const phase = /"phase":"([a-z-]+)"/.exec(raw)?.[1];
  const isProgress = reader === 'event' && phase !== undefined && !telling.has(phase);
  return isProgress ? 'progress' : `\n${withoutClocks(Buffer.from(body).toString('latin1'))}\n`;
}

const stateTexts = new Map<string, string>();
function journalText(bytes: Uint8Array): string {
  const { frames, damage } = readFrames(bytes);
  const last = frames.at(-1);
  if (damage === 'rotten') return 'rotten';
  if (last === undefined) return 'empty';
  const json = Buffer.from(last).toString('latin1');
  const known = stateTexts.get(json) ?? stateText((JSON.parse(json) as Journalled).data.state);
  stateTexts.set(json, known);
  return known;
}

interface Journalled {
  readonly data: { readonly state: Clocked };
}
interface Clocked {
  readonly run?: { readonly runMs: number };
  readonly opCounter?: number;
  readonly op?: { readonly id: number } | null;
  readonly ticket?: { readonly deadlineRunMs: number } | null;
}

/** Ids of operations only tell one from the next. */
function stateText(state: Clocked): string {
  const { opCounter: _counter, op, ...rest } = state;
  const operation = op === null || op === undefined ? null : { ...op, id: 0 };
  const deadlineRunMs = state.ticket?.deadlineRunMs ?? null;
  const left = leftOf(deadlineRunMs, state.run?.runMs ?? 0);
  return `${left} ${withoutClocks(JSON.stringify({ ...rest, op: operation }))}`;
}

function ticketText(bytes: Uint8Array): string {
  const found = decodeTicket(bytes);
  if (found === null) return 'damaged';
  const left = leftOf(found.deadlineRunMs, found.clock.runMs);
  return `${left} ${withoutClocks(JSON.stringify(found))}`;
}

function leftOf(deadlineRunMs: number | null, runMs: number): string {
  if (deadlineRunMs === null) return '';
  const leftMs = deadlineRunMs - runMs;
  return leftMs >= AMPLE_MS ? 'left enough' : `left ${Math.floor(leftMs / DEADLINE_STEP_MS)}`;
}

function withoutClocks(text: string): string {
  return text
    .replaceAll(/"(\w*Ms)":\d+/g, (whole, key: string) =>
      PLANNED.test(key) ? whole : `"${key}":~`,
    )
    .replaceAll(/\b1[67]\d{11}\b/g, '~')
    .replaceAll(/"evidence":\{[^{}]*\}/g, '');
}

/** Random names by the order in which they turn up; boots by whether they are the one that goes on. */
function named(text: string, now: string | null): string {
  const names = new Map<string, number>();
  return text.replaceAll(RANDOM_NAME, (name) => {
    if (name.startsWith('boot-')) return name === now ? '@now' : '@before';
    const number = names.get(name) ?? names.size;
    names.set(name, number);
    return `@${number}`;
  });
}
