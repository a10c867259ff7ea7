/**
 * The ticket as a file: lines `key=value` that a POSIX shell reads and rewrites, one line of JSON with the rest that only
 * the agent needs, and a checksum that cksum(1) computes. Each field stands in exactly one place, so agent and guard
 * cannot disagree about it. Format: docs/specs/durable-state.md, section 5.
 */
import { parseTicket, TICKET_SCHEMA, type Ticket } from '#/agent/core/ticket.ts';
import type { FilePort } from '#/agent/ports.ts';
import { Problem } from '#/protocol/errors.ts';
import { readFile, removeFile, replaceFile } from './durable.ts';

const HEADER = 'switchback-ticket/1';
export const TICKET_MAX_BYTES = 256 * 1024;

/** What the guard reads and, below the blank, may change. The order is the order in the file. */
type FlatKey = (typeof flatKeys)[number];
const flatKeys = [
  'attempt',
  'kind',
  'artifact',
  'target_slot',
  'target_identity',
  'rollback_slot',
  'rollback_artifact',
  'one_way',
  'max_boots',
  'arm_boot',
  'deadline_run_ms',
  'state',
  'reason_code',
  'reason_message',
  'boots_used',
  'last_boot',
  'run_ms',
  'run_boot',
  'run_monotonic_ms',
] as const;

/** The bytes of a ticket file. */
export function encodeTicket(ticket: Ticket): Uint8Array {
  const { oneWay, ...plan } = ticket.plan;
  const flat: Record<FlatKey, string | number> = {
    attempt: ticket.attempt,
    kind: ticket.kind,
    artifact: ticket.artifactId,
    target_slot: ticket.targetSlot,
    target_identity: ticket.targetIdentity,
    rollback_slot: ticket.rollbackSlot ?? '',
    rollback_artifact: ticket.rollbackArtifact ?? '',
    one_way: oneWay ? 1 : 0,
    max_boots: ticket.maxBoots,
    arm_boot: ticket.armBootId,
    deadline_run_ms: ticket.deadlineRunMs,
    state: ticket.state,
    reason_code: ticket.reason?.code ?? '',
    reason_message: ticket.reason?.message ?? '',
    boots_used: ticket.bootsUsed,
    last_boot: ticket.lastBootId,
    run_ms: ticket.clock.runMs,
    run_boot: ticket.clock.bootId,
    run_monotonic_ms: ticket.clock.monotonicMs,
  };
  const rest = JSON.stringify({
    rolloutId: ticket.rolloutId,
    version: ticket.version,
    class: ticket.class,
    release: ticket.release,
    retryGeneration: ticket.retryGeneration,
    plan,
    baselinePassed: ticket.baselinePassed,
  });
  const lines = flatKeys.map((key) => `${key}=${oneLine(String(flat[key]))}\n`);
  const body = Buffer.from(`${HEADER}\n${lines.join('')}json=${rest}\n`);
  return Buffer.concat([body, Buffer.from(`cksum=${cksum(body)} ${body.byteLength}\n`)]);
}

/** The ticket in the bytes of a file, or null when they are not one: cut off, altered or of a newer format. */
export function decodeTicket(bytes: Uint8Array): Ticket | null {
  const text = Buffer.from(bytes).toString('utf8');
  const match = /^([\s\S]*\n)cksum=([0-9]+) ([0-9]+)\n$/.exec(text);
  if (match?.[1] === undefined) return null;
  const body = Buffer.from(match[1]);
  if (body.byteLength !== Number(match[3]) || cksum(body) !== Number(match[2])) return null;
  const [header, ...lines] = match[1].slice(0, -1).split('\n');
  if (header !== HEADER) return null;
  const values = new Map(lines.map((line) => cut(line)));
  const of = (key: FlatKey): string => values.get(key) ?? '';
  let rest: { readonly plan?: object };
  try {
    rest = JSON.parse(values.get('json') ?? '') as typeof rest;
  } catch {
    return null;
  }
  return parseTicket({
    ...rest,
    schema: TICKET_SCHEMA,
    attempt: of('attempt'),
    kind: of('kind'),
    artifactId: of('artifact'),
    targetSlot: of('target_slot'),
    targetIdentity: of('target_identity'),
    rollbackSlot: of('rollback_slot') || null,
    rollbackArtifact: of('rollback_artifact') || null,
    maxBoots: wholeNumber(of('max_boots')),
    armBootId: of('arm_boot'),
    deadlineRunMs: wholeNumber(of('deadline_run_ms')),
    state: of('state'),
    reason:
      of('reason_code') === '' ? null : { code: of('reason_code'), message: of('reason_message') },
    bootsUsed: wholeNumber(of('boots_used')),
    lastBootId: of('last_boot'),
    clock: {
      runMs: wholeNumber(of('run_ms')),
      bootId: of('run_boot'),
      monotonicMs: wholeNumber(of('run_monotonic_ms')),
    },
    plan: { ...rest.plan, oneWay: of('one_way') === '1' },
  });
}

export interface TicketFile {
  /** 'damaged': there is a file, but no ticket can be read from it. */
  read(): Promise<Ticket | 'damaged' | null>;
  /** Durable on return. */
  write(ticket: Ticket): Promise<void>;
  remove(): Promise<void>;
}

/** The ticket at `path`; its directory exists. */
export function ticketFile(files: FilePort, path: string): TicketFile {
  return {
    async read() {
      try {
        const bytes = await readFile(files, path, TICKET_MAX_BYTES);
        return bytes === null ? null : (decodeTicket(bytes) ?? 'damaged');
      } catch (error) {
        if (error instanceof Problem && error.code === 'E_STATE') return 'damaged';
        throw error;
      }
    },
    write: (ticket) => replaceFile(files, path, encodeTicket(ticket)),
    remove: () => removeFile(files, path),
  };
}

/** Control characters would end a line early or confuse a terminal. */
function oneLine(text: string): string {
  return text.replaceAll(/\p{Cc}+/gu, ' ');
}

function cut(line: string): readonly [string, string] {
  const at = line.indexOf('=');
  return [line.slice(0, at), line.slice(at + 1)];
}

/** NaN for anything but decimal digits, which the schema then refuses: Number('') would be 0. */
function wholeNumber(text: string): number {
  return /^[0-9]{1,16}$/.test(text) ? Number(text) : Number.NaN;
}

/** The CRC of POSIX cksum(1): polynomial 0x04c11db7, most significant bit first, the length appended, inverted. */
export function cksum(bytes: Uint8Array): number {
  let crc = 0;
  for (const byte of bytes) crc = cksumByte(crc, byte);
  for (let length = bytes.byteLength; length > 0; length = Math.floor(length / 256)) {
    crc = cksumByte(crc, length % 256);
  }
  return ~crc >>> 0;
}

function cksumByte(crc: number, byte: number): number {
  let next = crc ^ (byte << 24);
  for (let bit = 0; bit < 8; bit += 1) next = next < 0 ? (next << 1) ^ 0x04c11db7 : next << 1;
  return next;
}
