/** Every parser of bytes from outside, with seeds that it accepts. A parser gives a value or throws a Problem; nothing else. */
import { randomBytes } from 'node:crypto';
import { zstdCompressSync } from 'node:zlib';
import { decodeState, encodeState, type StateFormat } from '#/agent/adapters/state-file.ts';
import { encodeRecord, parseJournal } from '#/agent/adapters/journal.ts';
import { decodeTicket } from '#/agent/adapters/ticket.ts';
import { settingsFrom } from '#/agent/config.ts';
import { parseStatement } from '#/bundle/attestation.ts';
import { canonicalDocument } from '#/bundle/canonical.ts';
import { parseIndex } from '#/bundle/chunk-index.ts';
import { locateMembers, memberHeader, padding } from '#/bundle/container.ts';
import {
  decodeEnvelope,
  encodeEnvelope,
  MANIFEST_PAYLOAD_TYPE,
  openEnvelope,
  signEnvelope,
} from '#/bundle/dsse.ts';
import { verify, verifyFast } from '#/bundle/ed25519.ts';
import { openCheckpoint, signCheckpoint } from '#/bundle/log/checkpoint.ts';
import { readEntry, unpackEntries, packEntries, entryBytes } from '#/bundle/log/entry.ts';
import { formatProof, parseProof } from '#/bundle/log/proof.ts';
import { parseTilePath } from '#/bundle/log/tiles.ts';
import { parseManifest } from '#/bundle/manifest.ts';
import { openChunk } from '#/bundle/open-chunk.ts';
import {
  dictionaryBuffer,
  encodePatchHeader,
  encodePatchTable,
  inflate,
  openPatchTable,
  packPatchTable,
  packWithDictionary,
  parsePatchHeader,
  streamBytesOf,
} from '#/bundle/patch.ts';
import { parseStrictJson } from '#/bundle/strict-json.ts';
import { encodeTreeList, parseTreeList } from '#/bundle/tree-list.ts';
import { desiredPath } from '#/bundle/trust/documents.ts';
import { decodeMetadata } from '#/bundle/trust/metadata.ts';
import { topLevelRoles } from '#/bundle/trust/role.ts';
import { agentRules } from '#/bundle/trust/rules.ts';
import { proposalLines } from '#/control/cli/trust/proposal-text.ts';
import { decodeKeyFile, encodeKeyFile } from '#/control/trust/key-file.ts';
import {
  acceptProposal,
  decodeProposal,
  encodeProposal,
  propose,
  signNeeded,
} from '#/control/trust/proposal.ts';
import { setFloors } from '#/control/trust/targets.ts';
import { formatAgentState, parseAgentState } from '#/protocol/agent-plane.ts';
import { signRequest, readSignedRequest } from '#/protocol/http-signature.ts';
import { Problem } from '#/protocol/errors.ts';
import { formatInvitation, parseInvitation } from '#/protocol/join-token.ts';
import { parseSelector } from '#/protocol/selector.ts';
import {
  directory,
  file,
  imageIndex,
  sha256,
  symlink,
  treeIndex,
} from '#/test/support/bundle/sample-index.ts';
import { manifestFor, NOW_MS, signerNumber, TrustWorld } from '#/test/support/trust-world.ts';
import * as v from 'valibot';
import type { FuzzTarget } from './run.ts';
import { fileTargets } from './targets-files.ts';
import { wireBodyTargets } from './targets-wire.ts';

const text = (bytes: Uint8Array): string => Buffer.from(bytes).toString('utf8');
const bytesOf = (value: string): Uint8Array => Buffer.from(value, 'utf8');

/** The targets; made once. */
export async function fuzzTargets(): Promise<readonly FuzzTarget[]> {
  return [
    ...jsonTargets(),
    ...bundleTargets(),
    ...trustTargets(),
    ...logTargets(),
    ...agentTargets(),
    ...wireTargets(),
    ...wireBodyTargets(),
    ...(await fileTargets()),
  ];
}

function jsonTargets(): readonly FuzzTarget[] {
  const manifest = canonicalDocument(manifestFor(1));
  return [
    {
      name: 'strict-json',
      seeds: [manifest, bytesOf('[1,"\\u00e9",{"a":null}]')],
      parse: (bytes) => parseStrictJson(bytes, { maxBytes: 1 << 20 }),
    },
    { name: 'manifest', seeds: [manifest], parse: parseManifest },
    {
      name: 'statement',
      seeds: [
        canonicalDocument({
          _type: 'https://in-toto.io/Statement/v1',
          subject: [{ name: 'x', digest: { sha256: 'a'.repeat(64) } }],
          predicateType: 'https://slsa.dev/provenance/v1',
          predicate: {},
        }),
      ],
      parse: parseStatement,
    },
  ];
}

function bundleTargets(): readonly FuzzTarget[] {
  const image = imageIndex([4096, -8192, 65_536]);
  const entries = [directory('a'), file('a/b', 'content'), symlink('a/c', 'b')];
  const tree = treeIndex(entries, 'content'.length);
  const raw = Buffer.from('chunk '.repeat(2000));
  const stored = zstdCompressSync(raw);
  const entry = {
    digest: Buffer.from(sha256(raw), 'hex'),
    rawSize: raw.length,
    storedSize: stored.length,
    offset: 0,
  };
  const tar = Buffer.concat([
    memberHeader('manifest.json', 3, 1),
    Buffer.from('{}\n'),
    padding(3),
    memberHeader('manifest.dsse.json', 0, 1),
    memberHeader('attestations.intoto.jsonl', 0, 1),
    memberHeader('chunks.index', 0, 1),
    memberHeader('chunks.data', 0, 1),
  ]);
  return [
    { name: 'container', seeds: [tar], parse: locateMembers },
    {
      name: 'index-of-image',
      seeds: [image.raw],
      parse: (bytes) => parseIndex(bytes, image.manifest),
    },
    {
      name: 'index-of-tree',
      seeds: [tree.raw],
      parse: (bytes) => parseIndex(bytes, tree.manifest),
    },
    {
      name: 'tree-list',
      seeds: [encodeTreeList(entries)],
      parse: (bytes) => parseTreeList(bytes, {}),
    },
    ...patchTargets(image),
    {
      name: 'chunk',
      seeds: [stored],
      parse: (bytes) => openChunk(bytes, { ...entry, storedSize: bytes.length }),
    },
  ];
}

/** A patch is unsigned: its header, its table and its segments are read before anything vouches for them. */
function patchTargets(old: ReturnType<typeof imageIndex>): readonly FuzzTarget[] {
  const held = parseIndex(old.raw, old.manifest);
  const raw = Buffer.from('segment '.repeat(1000));
  const { whole, content } = dictionaryBuffer(4096);
  content.set(raw.subarray(0, 4096));
  const segment = packWithDictionary(raw, whole, 3);
  const range = { position: 4096, sizeBytes: 4096 };
  const segments = [0, 1].map((chunk) => ({
    chunks: [chunk],
    rawBytes: 8000,
    storedBytes: segment.length,
    offset: chunk * segment.length,
    ranges: [range],
  }));
  const table = encodePatchTable(segments);
  const header = {
    from: '1'.repeat(64),
    to: '2'.repeat(64),
    indexStoredBytes: 0,
    tableBytes: table.length,
    tableStoredBytes: packPatchTable(table).length,
    segmentCount: segments.length,
    dataBytes: 2 * segment.length,
  };
  const wanted = { rawSizes: Uint32Array.of(8000, 8000) };
  const open = (stored: Uint8Array, tableBytes: number): unknown =>
    openPatchTable(stored, { ...header, tableBytes }, [0, 1], wanted, streamBytesOf(held));
  return [
    {
      name: 'patch-header',
      seeds: [encodePatchHeader(header)],
      parse: (bytes) => parsePatchHeader(bytes, 1e6),
    },
    // As it is stored, and raw, packed here: mutations of a frame seldom get past the decoder.
    {
      name: 'patch-table-stored',
      seeds: [packPatchTable(table)],
      parse: (b) => open(b, table.length),
    },
    {
      name: 'patch-table',
      seeds: [table],
      parse: (bytes) => open(packPatchTable(bytes), bytes.length),
    },
    {
      name: 'patch-segment',
      seeds: [segment],
      parse: (bytes) => {
        const out = inflate(bytes, raw.length, whole);
        if (out === null) throw new Problem('E_HASH', 'does not decode');
        return out.length === raw.length;
      },
    },
  ];
}

function trustTargets(): readonly FuzzTarget[] {
  const world = new TrustWorld();
  world.pin(world.release(1), 1);
  const key = signerNumber(7);
  const envelope = encodeEnvelope(
    signEnvelope(MANIFEST_PAYLOAD_TYPE, Buffer.from('payload'), [key]),
  );
  const named = (pattern: RegExp): Uint8Array[] =>
    [...world.files].flatMap(([name, bytes]) => (pattern.test(name) ? [bytes] : []));
  const change = propose({ ...world.repository(), keys: world.keys.control }, 'fuzz', (r) =>
    setFloors(r, { web: 1 }),
  );
  const signature = key.sign(Buffer.from('message'));
  return [
    ...topLevelRoles.map((role) => ({
      name: `tuf-${role}`,
      seeds: named(
        role === 'timestamp'
          ? /timestamp\.json$/
          : new RegExp(
              `[0-9]\\.${role === 'targets' ? '(targets|grp-blue|img-web|policy)' : role}\\.json$`,
            ),
      ),
      parse: (bytes: Uint8Array) => decodeMetadata(role as 'root', bytes, agentRules),
    })),
    {
      name: 'dsse',
      seeds: [envelope],
      parse: (bytes) =>
        openEnvelope(decodeEnvelope(bytes), {
          keys: [key.key],
          threshold: 1,
          payloadType: MANIFEST_PAYLOAD_TYPE,
        }),
    },
    {
      name: 'pin',
      seeds: named(/desired\.json$/),
      parse: (bytes) => parseStrictJson(bytes, { maxBytes: 65_536 }),
    },
    {
      name: 'proposal',
      seeds: [encodeProposal(change)],
      parse: (bytes) => {
        const decoded = decodeProposal(bytes);
        proposalLines(decoded);
        const { proposal } = signNeeded(decoded, world.keys.control);
        return acceptProposal(world.repository(), proposal);
      },
    },
    { name: 'key-file', seeds: [encodeKeyFile(world.keys.control)], parse: decodeKeyFile },
    {
      // Both verifiers, one verdict (B06).
      name: 'ed25519',
      seeds: [Buffer.concat([signature, key.key.bytes])],
      parse: (bytes) => {
        const [sig, publicKey] = [bytes.subarray(0, 64), bytes.subarray(64)];
        const message = Buffer.from('message');
        if (verify(message, sig, publicKey) !== verifyFast(message, sig, publicKey))
          throw new Error('two verifiers of ed25519, two verdicts');
      },
    },
    {
      name: 'path',
      seeds: [bytesOf(desiredPath('blue'))],
      parse: (bytes) => parseTilePath(text(bytes)),
    },
  ];
}

function logTargets(): readonly FuzzTarget[] {
  const key = signerNumber(8);
  const log = { origin: 'log.example/fleet', keys: [key.key] };
  const checkpoint = signCheckpoint(log.origin, { size: 1, root: randomBytes(32) }, key);
  const entry = entryBytes({
    id: 1,
    atMs: 1,
    actor: 'ann',
    type: 'pin',
    subject: 'group/web',
    details: { seq: 1 },
  } as never);
  const proof = formatProof({ entry, index: 0, hashes: [randomBytes(32)], checkpoint });
  return [
    {
      name: 'checkpoint',
      seeds: [bytesOf(checkpoint)],
      parse: (bytes) => openCheckpoint(text(bytes), log),
    },
    { name: 'log-proof', seeds: [bytesOf(proof)], parse: (bytes) => parseProof(text(bytes)) },
    { name: 'log-entry', seeds: [entry], parse: readEntry },
    { name: 'log-entries', seeds: [packEntries([entry, entry])], parse: unpackEntries },
    {
      name: 'tile-path',
      seeds: ['tile/0/000', 'tile/0/x001/234.p/7', 'tile/entries/000.p/3'].map(bytesOf),
      parse: (bytes) => parseTilePath(text(bytes)),
    },
  ];
}

function agentTargets(): readonly FuzzTarget[] {
  const format: StateFormat<{ a: number }> = {
    kind: 'fuzz',
    version: 1,
    limitBytes: 65_536,
    schema: v.object({ a: v.number() }),
  };
  const record = encodeRecord({
    v: 1,
    seq: 1,
    bootId: 'b',
    monotonicMs: 1,
    wallMs: 1,
    data: { at: 'idle' },
  });
  const toml =
    '[slots]\nroot = "/srv"\nkeep = 3\n[poll]\ninterval_ms = 60000\n[trust]\nrefresh_ms = 60000\n';
  return [
    {
      name: 'state-file',
      seeds: [encodeState(format, { a: 1 })],
      parse: (bytes) => decodeState(format, 'x', bytes),
    },
    { name: 'journal', seeds: [Buffer.concat([record, record])], parse: parseJournal },
    {
      name: 'ticket',
      seeds: [bytesOf('switchback-ticket/1\nattempt=a\nkind=install\n\n{}\nsum=1 2\n')],
      parse: decodeTicket,
    },
    {
      name: 'settings',
      seeds: [bytesOf(toml), bytesOf('[host]\nclass = "web"\n')],
      parse: (bytes) => settingsFrom([{ file: 'x.toml', text: text(bytes) }]),
    },
  ];
}

function wireTargets(): readonly FuzzTarget[] {
  const key = signerNumber(9);
  const message = {
    method: 'POST',
    url: 'http://127.0.0.1/agent/v1/token',
    headers: { 'content-type': 'application/json' },
  };
  const digest = Buffer.from(sha256(new Uint8Array()), 'hex');
  const nowS = NOW_MS / 1000;
  const signed = signRequest(
    message,
    digest,
    { keyId: key.key.keyId, sign: key.sign },
    { nowS, nonce: 'a'.repeat(32) },
  );
  const headerText = Object.entries({ ...message.headers, ...signed })
    .map(([name, value]) => `${name}: ${value}`)
    .join('\n');
  const invitation = formatInvitation({
    controlUrls: ['https://control.example'],
    token: `sbj_${'t'.repeat(22)}`,
    rootSha256: 'a'.repeat(64),
    caPem: null,
  });
  const state = formatAgentState({
    running: 'a'.repeat(64),
    state: 'idle',
    healthy: true,
    seq: 7,
    boot: 'b0',
    factsHash: null,
  });
  return [
    {
      name: 'signed-request',
      seeds: [bytesOf(headerText)],
      parse: (bytes) => {
        const headers = Object.fromEntries(
          text(bytes)
            .split('\n')
            .map((line) => {
              const colon = line.indexOf(': ');
              return [line.slice(0, colon), line.slice(colon + 2)];
            }),
        );
        return readSignedRequest({ ...message, headers }, digest, nowS);
      },
    },
    {
      name: 'join-text',
      seeds: [bytesOf(invitation)],
      parse: (bytes) => parseInvitation(text(bytes)),
    },
    {
      name: 'agent-state',
      seeds: [bytesOf(state)],
      parse: (bytes) => parseAgentState(text(bytes)),
    },
    {
      name: 'selector',
      seeds: ['role=web,zone!=a,old', 'a!=b'].map(bytesOf),
      parse: (bytes) => parseSelector(text(bytes)),
    },
  ];
}
