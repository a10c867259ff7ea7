/**
 * What a host remembers beside the metadata: floors that only rise. Kept as one state file through the trust store.
 * docs/specs/trust.md, section 10.
 */
import * as v from 'valibot';
import type { TrustStore } from '#/bundle/trust/client.ts';
import { emptyMemory, type TrustMemory } from '#/bundle/trust/resolve.ts';
import { isProblem, Problem } from '#/protocol/errors.ts';
import { artifactId, sha256Hex } from '#/protocol/ids.ts';
import { decodeState, encodeState, type StateFormat } from './state-file.ts';

interface StoredMemory extends TrustMemory {
  /** Whose memory this is: that of another host is not taken over (H03). */
  readonly host: string;
}

const counter = v.pipe(v.number(), v.safeInteger(), v.minValue(0));
const counters = v.record(v.string(), counter);

const format: StateFormat<StoredMemory> = {
  kind: 'trust',
  version: 1,
  limitBytes: 2 * 1024 * 1024,
  schema: v.object({
    host: v.string(),
    timeFloor: counter,
    floors: counters,
    committed: counters,
    pins: counters,
    revokedArtifacts: v.array(artifactId),
    revokedKeyIds: v.array(sha256Hex),
    log: v.optional(v.object({ origin: v.string(), size: counter, root: sha256Hex })),
  }),
};

const NAME = 'memory';

/** The memory of this host, or null. @throws Problem E_STATE when it is damaged or another host's */
export async function readMemory(store: TrustStore, host: string): Promise<TrustMemory | null> {
  const bytes = await store.read(NAME);
  if (bytes === null) return null;
  const { host: owner, ...memory } = decodeState(format, NAME, bytes);
  if (owner !== host) {
    throw new Problem('E_STATE', `trust state of ${owner}, this is ${host}`, { owner, host });
  }
  return memory;
}

/** As readMemory, but a damaged state is told to `onDamaged` and begun anew. */
export async function readOrRebuildMemory(
  store: TrustStore,
  host: string,
  onDamaged: (problem: Problem) => void,
): Promise<TrustMemory> {
  try {
    return (await readMemory(store, host)) ?? emptyMemory;
  } catch (error) {
    if (!isProblem(error, 'E_STATE')) throw error;
    onDamaged(error);
    return emptyMemory;
  }
}

/** Durable on return. */
export async function writeMemory(
  store: TrustStore,
  host: string,
  memory: TrustMemory,
): Promise<void> {
  await store.replace(NAME, encodeState(format, { host, ...memory }));
}
