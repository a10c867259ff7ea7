/** Versions for a host without control: bundle files, and the anchor that its agent was built with. */
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { ArtifactId } from '#/protocol/ids.ts';
import { build, writeTree } from '#/test/support/bundle/build-sample.ts';
import { TrustWorld } from '#/test/support/trust-world.ts';

export const CLASS = 'web';

export interface Release {
  readonly artifactId: ArtifactId;
  readonly file: string;
  readonly version: string;
}

export interface Releases {
  /** Holds root.json and targets.json. */
  readonly anchorDirectory: string;
  readonly v1: Release;
  readonly v2: Release;
  /** Its check never passes. */
  readonly bad: Release;
  /** Good, and newer than all: what a host has to be able to take whatever happened before. */
  readonly next: Release;
}

/** Files of the tree: two of several chunks, some small ones, a directory. */
function content(version: string): Readonly<Record<string, string | Uint8Array>> {
  const large = (name: string, sizeBytes: number): Uint8Array => {
    const bytes = Buffer.alloc(sizeBytes);
    // Different in each version and place, so that nothing of it is found in the version before.
    for (let at = 0; at < sizeBytes; at += 32) bytes.write(`${version} ${name} ${at}`, at);
    return bytes;
  };
  return {
    'bin/app': large('app', 60_000),
    'data/large': large('large', 120_000),
    'data/shared': 'the same in each version\n'.repeat(100),
    'etc/version': `${version}\n`,
  };
}

/** What a version is made of. */
export interface ReleaseContent {
  /** Makes the directory or image of a version; resolves with its path. */
  input(directory: string, number: number, version: string): Promise<string>;
  /** How it is started and tried, beside its check. */
  readonly definition: object;
}

const tree: ReleaseContent = {
  async input(directory, number, version) {
    const path = join(directory, `tree-${number}`);
    await writeTree(path, content(version));
    return path;
  },
  definition: {
    activation: { kind: 'command', start: ['/bin/true'], timeoutMs: 10_000 },
    trial: { soakMs: 20, deadlineMs: 20_000 },
  },
};

/** Builds and signs them below `directory`, which exists. */
export async function buildReleases(
  directory: string,
  of: ReleaseContent = tree,
): Promise<Releases> {
  // The metadata has to be valid by the clock of this machine.
  const trust = new TrustWorld(Date.now());
  // The first release of a class delegates to it.
  trust.release(1);
  const anchorDirectory = join(directory, 'anchor');
  mkdirSync(anchorDirectory);
  for (const role of ['root', 'targets'] as const) {
    writeFileSync(join(anchorDirectory, `${role}.json`), newestOf(trust, role));
  }
  const release = async (number: number, isGood: boolean): Promise<Release> => {
    const version = `1.${number}.0`;
    const input = await of.input(directory, number, version);
    const file = join(directory, `app-${version}.bundle`);
    const built = await build(input, file, {
      signers: [trust.key('release')],
      definitionChanges: {
        class: CLASS,
        version,
        release: number,
        ...of.definition,
        health: [
          {
            kind: 'exec',
            name: 'answers',
            argv: [isGood ? '/bin/true' : '/bin/false'],
            intervalMs: 20,
            timeoutMs: 5_000,
            successesNeeded: 1,
            failuresAllowed: 1,
          },
        ],
      },
    });
    return { artifactId: built.artifactId, file, version };
  };
  return {
    anchorDirectory,
    v1: await release(1, true),
    v2: await release(2, true),
    bad: await release(3, false),
    next: await release(4, true),
  };
}

function newestOf(trust: TrustWorld, role: string): Uint8Array {
  const versions = [...trust.files.keys()].flatMap((name) => {
    const match = new RegExp(`^metadata/(\\d+)\\.${role}\\.json$`).exec(name);
    return match === null ? [] : [Number(match[1])];
  });
  const bytes = trust.files.get(`metadata/${Math.max(...versions)}.${role}.json`);
  if (bytes === undefined) throw new Error(`no metadata of ${role}`);
  return bytes;
}
