/** Attacks on the audit log and on verdicts of the gates, against a host that runs. Formats: ../log.test.ts, ../gates.test.ts. */
import { afterAll, beforeAll, it } from 'vitest';
import { canonicalDocument } from '#/bundle/canonical.ts';
import { hexOf, sha256, type Signer } from '#/bundle/keys.ts';
import { signCheckpoint } from '#/bundle/log/checkpoint.ts';
import { entryBytes } from '#/bundle/log/entry.ts';
import { formatProof, type LogProof, parseProof } from '#/bundle/log/proof.ts';
import type { GatesDocument } from '#/bundle/trust/gates.ts';
import { signVerdict } from '#/bundle/vsa.ts';
import { setGates } from '#/control/trust/gates.ts';
import { setDesired } from '#/control/trust/targets.ts';
import type { ArtifactRef, DesiredDocument, Envelope } from '#/protocol/documents.ts';
import type { GroupName } from '#/protocol/ids.ts';
import { type Attack, AttackedHost } from '#/test/support/attack/attacked-host.ts';
import { treeOf } from '#/test/support/log/memory-tree.ts';
import { signerNumber } from '#/test/support/trust-world.ts';

const gate = signerNumber(60);
const policy: GatesDocument = {
  schema: 'switchback.gates/1',
  verifierId: 'gate:test',
  keys: [hexOf(gate.key.bytes)],
  groups: ['blue'],
  rules: [{ name: 'all', message: 'all', expression: 'true', groups: ['*'] }],
};
type Verdict = Parameters<typeof signVerdict>[0];
function verdict(artifact: ArtifactRef, changes: Partial<Verdict> = {}, by = gate): Envelope {
  const policyDigest = sha256(canonicalDocument(policy));
  const own = { artifactId: artifact.artifactId, class: 'web', group: 'blue' };
  const rest = { verifierId: policy.verifierId, policyDigest, inputs: [], atMs: 0 };
  return signVerdict({ ...own, ...rest, ...changes }, by);
}

let host: AttackedHost;
beforeAll(async () => {
  host = await AttackedHost.start({
    prepare(world) {
      world.openLog();
      world.publish(setGates(world.repository(), policy));
    },
    pinned: (artifact) => ({ verdicts: [verdict(artifact)] }),
  });
});
afterAll(() => host[Symbol.asyncDispose]());

const refused = (code: string) => ({ refused: code }) as const;

function pinOf(artifact: ArtifactRef, more: Partial<DesiredDocument> = {}): DesiredDocument {
  return {
    schema: 'switchback.desired/1',
    group: 'blue' as GroupName,
    seq: 5,
    artifact,
    reason: 'attack',
    waves: [],
    verdicts: [verdict(artifact)],
    ...more,
  };
}

/** The pin is in the log as it should be; what proves it is changed. */
const proved =
  (change: (proof: LogProof) => LogProof | string) =>
  ({ world, v2 }: AttackedHost): void => {
    const logged = world.logged(pinOf(v2));
    const changed = change(parseProof(logged.logProof ?? ''));
    const logProof = typeof changed === 'string' ? changed : formatProof(changed);
    world.publish(setDesired(world.repository(), { ...logged, logProof }));
  };
const head = () => host.world.log!.tree.head();
const origin = 'switchback-log/test/1';
const flipped = (bytes: Uint8Array): Uint8Array =>
  Uint8Array.from(bytes, (byte, at) => (at === 40 ? byte ^ 1 : byte));

/** The same log under another history from here on. */
const forked =
  (size: number) =>
  ({ world, v2 }: AttackedHost): void => {
    world.log = { ...world.log!, tree: treeOf(size, 'forked ') };
    world.pin(v2, 5, { verdicts: [verdict(v2)] });
  };

const cases: readonly (readonly [string, Attack])[] = [
  [
    'L01 one bit of the entry of the pin',
    {
      attack: proved((proof) => ({ ...proof, entry: flipped(proof.entry) })),
      ends: refused('E_LOG'),
    },
  ],
  [
    'L02 a log that was cut off behind what the host saw',
    { attack: forked(1), ends: refused('E_LOG') },
  ],
  [
    'L03 a checkpoint by another key',
    {
      attack: proved((proof) => ({
        ...proof,
        checkpoint: signCheckpoint(origin, head(), signerNumber(78)),
      })),
      ends: refused('E_LOG'),
    },
  ],
  ['L04 a log that grew over another history', { attack: forked(300), ends: refused('E_LOG') }],
  [
    'L05 a proof for another index',
    { attack: proved((proof) => ({ ...proof, index: proof.index - 1 })), ends: refused('E_LOG') },
  ],
  [
    'L06 a proof with a hash too many',
    {
      attack: proved((proof) => ({ ...proof, hashes: [...proof.hashes, new Uint8Array(32)] })),
      ends: refused('E_LOG'),
    },
  ],
  [
    'L06 a proof without its first hash',
    {
      attack: proved((proof) => ({ ...proof, hashes: proof.hashes.slice(1) })),
      ends: refused('E_LOG'),
    },
  ],
  [
    'L07 a checkpoint of an empty tree',
    {
      attack: proved((proof) => ({
        ...proof,
        index: 0,
        hashes: [],
        checkpoint: signCheckpoint(origin, treeOf(0).head(), host.world.log!.signer),
      })),
      ends: refused('E_LOG'),
    },
  ],
  [
    'L08 a second signature line under the name and id of the key of the log',
    {
      attack: proved((proof) => {
        const line = /\u2014 .*\n/.exec(proof.checkpoint)?.[0] ?? '';
        return { ...proof, checkpoint: `${proof.checkpoint}${line}` };
      }),
      ends: refused('E_LOG'),
    },
  ],
  [
    'E19 a pin that is not in the log',
    {
      attack: ({ world, v2 }) => world.publish(setDesired(world.repository(), pinOf(v2))),
      ends: refused('E_LOG'),
    },
  ],
  [
    'E19 a pin with the proof of another one',
    {
      attack({ world, v2 }) {
        const { logProof } = world.logged(pinOf(v2, { reason: 'another' }));
        world.publish(setDesired(world.repository(), { ...pinOf(v2), logProof: logProof! }));
      },
      ends: refused('E_LOG'),
    },
  ],
  [
    'E19 an entry of another type with the digest of the pin',
    {
      attack({ world, v2 }) {
        const logged = world.logged(pinOf(v2));
        const { details } = JSON.parse(
          Buffer.from(parseProof(logged.logProof ?? '').entry).toString(),
        ) as { details: object };
        const id = world.log!.tree.size + 1;
        const entry = { id, atMs: 1, actor: 'x', type: 'labels', subject: 'host/x', details };
        world.log!.tree.append(entryBytes(entry as never));
        const logProof = world.proofOf(entry as never);
        world.publish(setDesired(world.repository(), { ...logged, logProof }));
      },
      ends: refused('E_LOG'),
    },
  ],
  ['X07 the log of another host', { attack: forked(40), ends: refused('E_LOG') }],
  ...(
    [
      ['E23 a verdict under rules that were replaced', { policyDigest: 'b'.repeat(64) }, gate],
      ['E24 a verdict for the stage before', { group: 'canary' }, gate],
      ['P06 a verdict by a key that the policy does not name', {}, signerNumber(61)],
    ] as const satisfies readonly [string, Partial<Verdict>, Signer][]
  ).map(
    ([title, changes, by]) =>
      [
        title,
        {
          attack: ({ world, v2 }: AttackedHost) =>
            world.pin(v2, 5, { verdicts: [verdict(v2, changes, by)] }),
          ends: refused('E_VSA'),
        },
      ] as const,
  ),
  [
    'P03 a pin without any verdict',
    { attack: ({ world, v2 }) => world.pin(v2, 5, { verdicts: [] }), ends: refused('E_VSA') },
  ],
  [
    'P06 rules that ask for nothing, without the signature of the policy role',
    {
      attack({ forge }) {
        forge.role('policy', () => undefined, [signerNumber(62)]);
      },
      ends: refused('E_SIGS'),
    },
  ],
  [
    'a log that grew as it should, with its verdict, is followed',
    {
      attack: ({ world, v2 }) => world.pin(v2, 5, { verdicts: [verdict(v2)] }),
      ends: { taken: true },
    },
  ],
];

it.each(cases)('%s', (_title, attack) => host.suffers(attack));
