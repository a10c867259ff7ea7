/**
 * Bundles as no builder makes them, but with every digest and signature-relevant field right: what a malicious author of a
 * signed bundle could publish. Goes past the builder's checks through the writers of the formats.
 */
import { createHash } from 'node:crypto';
import { pathToFileURL } from 'node:url';
import { writeFile } from 'node:fs/promises';
import { zstdCompressSync } from 'node:zlib';
import type { Offer } from '#/agent/ports.ts';
import { memberHeader, padding, TRAILER_BYTES } from '#/bundle/container.ts';
import { encodeIndex, packIndex, type PayloadPieces } from '#/bundle/index-encode.ts';
import {
  artifactIdOf,
  encodeManifest,
  type Manifest,
  MANIFEST_SCHEMA,
  parseManifest,
} from '#/bundle/manifest.ts';
import type { TreeEntry } from '#/bundle/tree-entry.ts';
import { treeLayout } from '#/bundle/tree-layout.ts';
import { encodeTreeList } from '#/bundle/tree-list.ts';

export interface Crafted {
  readonly entries: readonly TreeEntry[];
  /** Content by sha256 (hex). */
  readonly contents: ReadonlyMap<string, Uint8Array>;
  /** Changes to the bytes after every digest was taken from the right ones. */
  readonly chunkBytes?: (stored: Uint8Array, number: number) => Uint8Array;
  readonly manifest?: (manifest: Manifest) => Manifest;
  readonly index?: (raw: Uint8Array) => Uint8Array;
  readonly allowSetuid?: boolean;
}

export function sha256Of(bytes: Uint8Array): string {
  return createHash('sha256').update(bytes).digest('hex');
}

/** A file entry and its content. */
export function fileEntry(path: string, text: string, mode = 0o644): [TreeEntry, Uint8Array] {
  const bytes = Buffer.from(text);
  const entry: TreeEntry = {
    kind: 'file',
    path,
    mode,
    uid: 0,
    gid: 0,
    sizeBytes: bytes.length,
    sha256: sha256Of(bytes),
  };
  return [entry, bytes];
}

/** Writes the bundle and gives the offer of it. */
export async function craftBundle(path: string, crafted: Crafted): Promise<Offer> {
  const layout = treeLayout(crafted.entries);
  const stream = Buffer.alloc(layout.streamBytes);
  for (const { position, files } of layout.contents) {
    const entry = crafted.entries[files[0] ?? 0];
    if (entry?.kind !== 'file') continue;
    stream.set(
      (crafted.contents.get(entry.sha256) ?? new Uint8Array()).subarray(0, entry.sizeBytes),
      position,
    );
  }
  const raws = cut(stream);
  const distinct = [...new Map(raws.map((raw) => [sha256Of(raw), raw])).values()];
  const numbers = new Map(distinct.map((raw, number) => [sha256Of(raw), number]));
  const stored = distinct.map((raw, number) => {
    const packed = zstdCompressSync(raw);
    const bytes = packed.length < raw.length ? packed : raw;
    return crafted.chunkBytes?.(bytes, number) ?? bytes;
  });
  const pieces: PayloadPieces = {
    chunker: 'fastcdc-16k',
    pieces: raws.map((raw) => ({ chunk: numbers.get(sha256Of(raw)) ?? 0 })),
    entries: crafted.entries,
  };
  const rows = distinct.map((raw, number) => ({
    digest: createHash('sha256').update(raw).digest(),
    rawSize: raw.length,
    storedSize: stored[number]?.length ?? 0,
  }));
  const right = encodeIndex(rows, [pieces]);
  const index = crafted.index?.(right) ?? right;
  const data = Buffer.concat(stored);
  const plain = manifestOf(crafted, index, data, raws.length, layout.contentBytes);
  const manifest = crafted.manifest?.(plain) ?? plain;
  const manifestBytes = encodeManifest(manifest);
  await writeFile(path, container(manifestBytes, packIndex(index), data));
  return offerFrom(path, manifestBytes);
}

function manifestOf(
  { entries, allowSetuid }: Crafted,
  index: Uint8Array,
  data: Uint8Array,
  pieceCount: number,
  contentBytes: number,
): Manifest {
  return {
    schema: MANIFEST_SCHEMA,
    name: 'app',
    class: 'web',
    arch: 'any',
    version: '1',
    release: 1,
    created: 1_700_000_000,
    minAgent: 0,
    minFrom: 0,
    index: { sha256: sha256Of(index), sizeBytes: index.length },
    dataBytes: data.length,
    payloads: [
      {
        kind: 'tree',
        name: 'root',
        chunker: 'fastcdc-16k',
        sizeBytes: contentBytes,
        chunkCount: pieceCount,
        entryCount: entries.length,
        treeSha256: sha256Of(encodeTreeList(entries)),
        ...(allowSetuid === true ? { allowSetuid } : {}),
      },
    ],
    activation: { kind: 'none' },
    health: [],
    trial: { soakMs: 0, deadlineMs: 1000, maxBoots: 1, control: 'offline-ok' },
  };
}

const CUT_BYTES = 16 * 1024;

function cut(stream: Uint8Array): Uint8Array[] {
  const raws: Uint8Array[] = [];
  for (let at = 0; at < stream.length; at += CUT_BYTES)
    raws.push(stream.subarray(at, at + CUT_BYTES));
  return raws;
}

function container(manifest: Uint8Array, index: Uint8Array, data: Uint8Array): Uint8Array {
  const members = [
    ['manifest.json', manifest],
    ['manifest.dsse.json', new Uint8Array()],
    ['attestations.intoto.jsonl', new Uint8Array()],
    ['chunks.index', index],
    ['chunks.data', data],
  ] as const;
  const parts = members.flatMap(([name, bytes]) => [
    memberHeader(name, bytes.length, 1_700_000_000),
    bytes,
    padding(bytes.length),
  ]);
  return Buffer.concat([...parts, new Uint8Array(TRAILER_BYTES)]);
}

export type ImagePart = { readonly bytes: Uint8Array } | { readonly hole: number };

/** A bundle of one image payload with the given parts, each a chunk or a hole: for images too large to be built. */
export async function craftImage(path: string, parts: readonly ImagePart[]): Promise<Offer> {
  const chunks = parts.flatMap((part) => ('bytes' in part ? [part.bytes] : []));
  const distinct = [...new Map(chunks.map((raw) => [sha256Of(raw), raw])).values()];
  const numbers = new Map(distinct.map((raw, number) => [sha256Of(raw), number]));
  const stored = distinct.map((raw) => zstdCompressSync(raw));
  const index = encodeIndex(
    distinct.map((raw, number) => ({
      digest: createHash('sha256').update(raw).digest(),
      rawSize: raw.length,
      storedSize: stored[number]?.length ?? 0,
    })),
    [
      {
        chunker: 'acdc-32k',
        entries: null,
        pieces: parts.map((part) =>
          'bytes' in part ? { chunk: numbers.get(sha256Of(part.bytes)) ?? 0 } : part,
        ),
      },
    ],
  );
  const data = Buffer.concat(stored);
  const { sizeBytes, sha256 } = digestOf(parts);
  const plain = manifestOf({ entries: [], contents: new Map() }, index, data, 0, 0);
  const manifestBytes = encodeManifest({
    ...plain,
    payloads: [
      {
        kind: 'image',
        name: 'root',
        chunker: 'acdc-32k',
        sizeBytes,
        sha256,
        chunkCount: parts.length,
      },
    ],
  });
  await writeFile(path, container(manifestBytes, packIndex(index), data));
  return offerFrom(path, manifestBytes);
}

const ZEROS = 1024 * 1024;

function digestOf(parts: readonly ImagePart[]): { sizeBytes: number; sha256: string } {
  const hash = createHash('sha256');
  const zeros = new Uint8Array(ZEROS);
  let sizeBytes = 0;
  for (const part of parts) {
    if ('bytes' in part) {
      hash.update(part.bytes);
      sizeBytes += part.bytes.length;
      continue;
    }
    for (let left = part.hole; left > 0; left -= ZEROS) hash.update(zeros.subarray(0, left));
    sizeBytes += part.hole;
  }
  return { sizeBytes, sha256: hash.digest('hex') };
}

function offerFrom(path: string, manifestBytes: Uint8Array): Offer {
  return {
    artifactId: artifactIdOf(manifestBytes),
    manifest: parseManifest(manifestBytes),
    manifestBytes,
    sources: [pathToFileURL(path).href],
    rolloutId: null,
    seq: 1,
    retryGeneration: 0,
  };
}
