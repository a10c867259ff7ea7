/**
 * Whom secrets are sealed for. What control says of a host counts only with the signature of the enrolment key; and that key, and
 * the key of each host, are kept here from the first time on: control may hold the enrolment key, so a host that is new or has
 * another key is sealed for only when a person says so. Format: docs/specs/operator-files.md, section 3.
 */
import { mkdir, readFile } from 'node:fs/promises';
import { dirname } from 'node:path';
import * as v from 'valibot';
import { canonicalDocument } from '#/bundle/canonical.ts';
import type { Recipient } from '#/bundle/config-set.ts';
import { openEnvelope } from '#/bundle/dsse.ts';
import { verifyFast } from '#/bundle/ed25519.ts';
import { bytesOfHex, publicKeyOf } from '#/bundle/keys.ts';
import { requireSealKey } from '#/bundle/seal.ts';
import { parseStrictJson } from '#/bundle/strict-json.ts';
import { checkShape } from '#/bundle/trust/documents.ts';
import {
  HOST_STATEMENT_PAYLOAD_TYPE,
  hostStatement,
  type HostStatement,
} from '#/protocol/agent-plane.ts';
import type { Recipients } from '#/protocol/config-set.ts';
import type { Envelope } from '#/protocol/documents.ts';
import { Problem } from '#/protocol/errors.ts';
import { hostId, type HostId, sha256Hex } from '#/protocol/ids.ts';
import { replaceWhole } from './files.ts';

const FILE_MAX_BYTES = 8 * 1024 * 1024;
const STATEMENT_MAX_BYTES = 16 * 1024;

const recipientsFile = v.strictObject({
  schema: v.literal('switchback.recipients/1'),
  enrolmentKey: sha256Hex,
  hosts: v.record(hostId, v.strictObject({ sealKey: sha256Hex, seq: v.number() })),
});
export type KnownRecipients = v.InferOutput<typeof recipientsFile>;

/** What is known of the hosts; null before the first sealing. */
export async function readRecipients(path: string): Promise<KnownRecipients | null> {
  let bytes: Uint8Array;
  try {
    bytes = await readFile(path);
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code === 'ENOENT') return null;
    throw new Problem('E_IO', `read ${path}`, { path }, { cause });
  }
  return checkShape(path, recipientsFile, parseStrictJson(bytes, { maxBytes: FILE_MAX_BYTES }));
}

export async function keepRecipients(path: string, known: KnownRecipients): Promise<void> {
  await mkdir(dirname(path), { recursive: true, mode: 0o700 });
  await replaceWhole(path, canonicalDocument(known), 0o600);
}

/** A host that is not sealed for until somebody says so. */
export interface Stranger {
  readonly host: HostId;
  readonly sealKey: string;
  readonly why: 'new' | 'other key';
}

export interface Chosen {
  readonly recipients: readonly Recipient[];
  readonly strangers: readonly Stranger[];
  readonly known: KnownRecipients;
}

/**
 * Who of the group is sealed for. `accepted`: hosts, or `all`, whose new keys were compared.
 * @throws Problem E_SIGS (a statement is not by the enrolment key, or that key is another one than before), E_SEAL (a statement of
 * another host or group; a key that cannot be sealed to; an older statement than was seen)
 */
export function chooseRecipients(
  group: string,
  answer: Recipients,
  before: KnownRecipients | null,
  accepted: readonly string[],
): Chosen {
  if (before !== null && before.enrolmentKey !== answer.enrolmentKey) {
    throw new Problem(
      'E_SIGS',
      `control names the enrolment key ${answer.enrolmentKey.slice(0, 16)}, ${before.enrolmentKey.slice(0, 16)} was kept`,
      { kept: before.enrolmentKey, named: answer.enrolmentKey },
    );
  }
  const recipients: Recipient[] = [];
  const strangers: Stranger[] = [];
  const hosts = { ...before?.hosts };
  for (const { host, statement } of answer.hosts) {
    const stated = openStatement(statement, answer.enrolmentKey);
    if (stated.host !== host || stated.group !== group) {
      throw new Problem(
        'E_SEAL',
        `the statement given for ${host} in ${group} is of ${stated.host} in ${stated.group}`,
        { host },
      );
    }
    const { sealKey, seq } = stated;
    const kept = hosts[host];
    if (kept !== undefined && seq < kept.seq) {
      throw new Problem('E_SEAL', `statement ${seq} of ${host} is older than ${kept.seq}`, {
        host,
      });
    }
    const isAccepted = accepted.includes('all') || accepted.includes(host);
    if (kept?.sealKey !== sealKey && !isAccepted) {
      strangers.push({ host, sealKey, why: kept === undefined ? 'new' : 'other key' });
      continue;
    }
    const bytes = bytesOfHex(sealKey, 32) ?? new Uint8Array();
    requireSealKey(bytes);
    hosts[host] = { sealKey, seq };
    recipients.push({ host, sealKey: bytes });
  }
  const known = {
    schema: 'switchback.recipients/1' as const,
    enrolmentKey: answer.enrolmentKey,
    hosts,
  };
  return { recipients, strangers, known };
}

function openStatement(statement: Envelope, enrolmentKey: string): HostStatement {
  const payload = openEnvelope(statement, {
    keys: [publicKeyOf(bytesOfHex(enrolmentKey, 32) ?? new Uint8Array())],
    threshold: 1,
    payloadType: HOST_STATEMENT_PAYLOAD_TYPE,
    verify: verifyFast,
  });
  const json = parseStrictJson(payload, { maxBytes: STATEMENT_MAX_BYTES });
  return checkShape('host statement', hostStatement, json);
}
