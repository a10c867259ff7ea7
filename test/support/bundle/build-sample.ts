import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { signerOf } from '#/bundle/keys.ts';
import { type BuildOptions, type BuildResult, buildBundle } from '#/control/cli/bundle/build.ts';
import { checkDefinition } from '#/control/cli/bundle/definition.ts';
import type { BundleTrust } from '#/control/cli/bundle/read.ts';

export const signer = signerOf(new Uint8Array(32).fill(1));
export const otherSigner = signerOf(new Uint8Array(32).fill(2));
export const trust: BundleTrust = { keys: [signer.key], threshold: 1 };

export interface Scratch {
  readonly path: string;
  readonly [Symbol.asyncDispose]: () => Promise<void>;
}

/** A directory that is gone at the end of the scope. */
export async function scratch(): Promise<Scratch> {
  const path = await mkdtemp(join(tmpdir(), 'bundle-test-'));
  return { path, [Symbol.asyncDispose]: () => rm(path, { recursive: true, force: true }) };
}

/** Writes files; a path that ends in `/` is a directory. */
export async function writeTree(
  root: string,
  files: Readonly<Record<string, string | Uint8Array>>,
): Promise<void> {
  await mkdir(root, { recursive: true });
  for (const [path, content] of Object.entries(files)) {
    const full = join(root, path);
    await mkdir(path.endsWith('/') ? full : join(full, '..'), { recursive: true });
    if (!path.endsWith('/')) await writeFile(full, content);
  }
}

/** Builds `input` with defaults that make tests quick. */
export function build(
  input: string,
  out: string,
  changes: Partial<BuildOptions> & { readonly definitionChanges?: object } = {},
): Promise<BuildResult> {
  const { definitionChanges, ...options } = changes;
  return buildBundle({
    definition: checkDefinition({
      name: 'sample',
      class: 'sample',
      version: '1.0',
      release: 1,
      compressionLevel: 3,
      ...definitionChanges,
    }),
    ...(options.definition?.payloads === undefined && !hasPayloads(definitionChanges)
      ? { input }
      : {}),
    out,
    sourceDateEpoch: 1_700_000_000,
    signers: [signer],
    workers: 2,
    ...options,
  });
}

const hasPayloads = (changes: object | undefined): boolean =>
  changes !== undefined && 'payloads' in changes;
