/**
 * Enrolment: keys are made here, the token is traded once for a place in the fleet. A lost answer is no loss: the same keys
 * ask again with the same token and get the same host.
 */
import { createHash } from 'node:crypto';
import * as v from 'valibot';
import { sha256 } from '#/bundle/keys.ts';
import { createClient, type Client } from '#/protocol/client.ts';
import { isProblem, Problem } from '#/protocol/errors.ts';
import { signRequest } from '#/protocol/http-signature.ts';
import type { Invitation } from '#/protocol/join-token.ts';
import { clockDetails, type EnrollAnswer } from '#/protocol/agent-plane.ts';
import type { Random } from '#/agent/ports.ts';
import {
  loadIdentity,
  makeKeys,
  openStatement,
  publicKeysOf,
  type HostIdentity,
  type HostKeys,
  type IdentityStore,
} from './identity.ts';
import type { Transport } from './transport.ts';

export interface EnrolOptions {
  readonly invitation: Invitation;
  readonly store: IdentityStore;
  /** To the addresses of the invitation, with its authority. */
  readonly transport: Transport;
  readonly random: Random;
  readonly wallMs: () => number;
  /** `machineDigest` of this host. */
  readonly machine: string;
  readonly class: string;
  readonly arch: 'amd64' | 'arm64';
  readonly agentVersion: string;
  readonly facts: Readonly<Record<string, string | number | boolean>>;
  /** Discards an identity that is there already. */
  readonly replace: boolean;
}

const ANSWER_MAX_BYTES = 256 * 1024;
const ROOT_MAX_BYTES = 64 * 1024;

/**
 * Enrols this host.
 * @throws Problem E_CONFLICT when it has an identity and `replace` is false; E_HASH when the trust root of control is not the
 * one of the invitation; E_TOKEN and the failures of the line to control.
 */
export async function enrol(options: EnrolOptions): Promise<HostIdentity> {
  const { store, invitation, machine, random } = options;
  await store.open();
  const old = await store.host.read().catch(() => null);
  const isClone = (await store.keys.read().catch(() => null))?.machine !== machine;
  if (old !== null && !options.replace && !isClone) {
    throw new Problem(
      'E_CONFLICT',
      `this host is enrolled as ${old.host}; --replace gives it a new identity`,
      {
        host: old.host,
      },
    );
  }
  if (old !== null) await store.removeAll();
  const keys = await keysFor(options);
  const { base, answer } = await ask(options, keys);
  const { host, group, class: hostClass } = answer;
  const said = openStatement(answer.statement, answer.enrolmentKey);
  const { signKey, sealKey } = publicKeysOf(keys);
  if (said.host !== host || said.group !== group || said.class !== hostClass)
    throw new Problem('E_SCHEMA', `the answer of control and its statement of ${said.host} differ`);
  if (said.signKey !== signKey || said.sealKey !== sealKey)
    throw new Problem('E_FORKED', `control vouches for other keys of ${host} than it was sent`);
  const rootBytes = await rootOf(options, base, answer);
  await store.writeRoot(rootBytes);
  await store.host.write({
    host,
    group,
    class: hostClass,
    statement: answer.statement,
    enrolmentKey: answer.enrolmentKey,
    controlUrls: [...invitation.controlUrls],
    caPem: invitation.caPem,
    rootSha256: invitation.rootSha256,
    enrolledAtMs: options.wallMs(),
  });
  const identity = await loadIdentity(store, machine, random);
  if (identity === null)
    throw new Problem('E_STATE', 'the identity that was just written is not there');
  return identity;
}

/** Keys of an enrolment that was cut off are used again; those of another machine never. */
async function keysFor(options: EnrolOptions): Promise<HostKeys> {
  const { store, machine, random } = options;
  const found = await store.keys.read().catch(() => null);
  if (found !== null && found.machine === machine) return found;
  const keys = makeKeys(random, machine, options.wallMs());
  await store.keys.write(keys);
  return keys;
}

async function ask(
  options: EnrolOptions,
  keys: HostKeys,
): Promise<{ readonly base: string; readonly answer: EnrollAnswer }> {
  let last: unknown = null;
  for (const base of options.invitation.controlUrls) {
    try {
      return { base, answer: await askOne(options, keys, base) };
    } catch (error) {
      if (!(error instanceof Problem) || error.kind !== 'unavailable') throw error;
      last = error;
    }
  }
  throw last;
}

async function askOne(options: EnrolOptions, keys: HostKeys, base: string): Promise<EnrollAnswer> {
  try {
    return await askWith(options, keys, base, {});
  } catch (error) {
    // A host whose clock does not keep time across boots: control gives it a text to prove that it asks now.
    const clocks = isProblem(error, 'E_UNAUTHENTICATED')
      ? v.safeParse(clockDetails, error.details)
      : null;
    if (clocks?.success !== true) throw error;
    return await askWith(options, keys, base, { challenge: clocks.output.challenge });
  }
}

async function askWith(
  options: EnrolOptions,
  keys: HostKeys,
  base: string,
  more: { readonly challenge?: string },
): Promise<EnrollAnswer> {
  const { signKey, sealKey } = publicKeysOf(keys);
  return await clientOf(options, keys, base).call('enroll', {
    body: {
      token: options.invitation.token,
      signKey,
      sealKey,
      class: options.class,
      arch: options.arch,
      agentVersion: options.agentVersion,
      facts: { ...options.facts },
      ...more,
    },
  });
}

/** A client whose requests carry the proof that the host has the private key (E14). */
function clientOf(options: EnrolOptions, keys: HostKeys, base: string): Client {
  const { signer } = publicKeysOf(keys);
  return createClient(async (request) => {
    const url = `${base}${request.path}`;
    const body = request.body instanceof Uint8Array ? request.body : new Uint8Array();
    const signed = signRequest(
      { method: request.method, url, headers: request.headers },
      createHash('sha256').update(body).digest(),
      { keyId: signer.key.keyId, sign: signer.sign },
      { nowS: Math.floor(options.wallMs() / 1000), nonce: options.random.hex(16) },
    );
    const answer = await options.transport.exchange({
      method: 'POST',
      url,
      headers: { ...request.headers, ...signed },
      body,
      maxBytes: ANSWER_MAX_BYTES,
    });
    return { ...answer, body: once(answer.body) };
  });
}

/** The trust root that the invitation names. The newest one may be a later one; the first is served for ever. */
async function rootOf(
  options: EnrolOptions,
  base: string,
  answer: EnrollAnswer,
): Promise<Uint8Array> {
  const wanted = options.invitation.rootSha256;
  const newest = Buffer.from(answer.root, 'utf8');
  if (sha256(newest) === wanted) return newest;
  const first = await options.transport.exchange({
    method: 'GET',
    url: `${base}/agent/v1/trust/metadata/1.root.json`,
    headers: {},
    body: null,
    maxBytes: ROOT_MAX_BYTES,
  });
  if (first.status === 200 && sha256(first.body) === wanted) return first.body;
  throw new Problem(
    'E_HASH',
    `control at ${base} has another trust root than the join text names`,
    {
      wanted,
      served: first.status === 200 ? sha256(first.body) : null,
    },
  );
}

async function* once(bytes: Uint8Array): AsyncGenerator<Uint8Array> {
  yield await Promise.resolve(bytes);
}
