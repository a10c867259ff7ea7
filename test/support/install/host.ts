/** A directory host on a real file system, and bundles for it made by the real builder. */
import { mkdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { createDirectoryBootControl } from '#/agent/adapters/boot-directory.ts';
import { nodeFiles } from '#/agent/adapters/file-port.ts';
import { mountsBelow, openUp, spaceOf, usedBytesOf } from '#/agent/adapters/file-system.ts';
import {
  createDirectorySlots,
  type DirectorySlotsOptions,
} from '#/agent/adapters/slots-directory.ts';
import { createDirectoryInstaller } from '#/agent/install/installer.ts';
import { directoryLayout } from '#/agent/install/layout.ts';
import { defaultInstallSettings, type InstallSettings } from '#/agent/install/settings.ts';
import type { RequestHeaders } from '#/agent/install/source.ts';
import type { DownloadResult, Offer, Progress } from '#/agent/ports.ts';
import { signerOf } from '#/bundle/keys.ts';
import { buildBundle, type BuildResult } from '#/control/cli/bundle/build.ts';
import { checkDefinition } from '#/control/cli/bundle/definition.ts';

/** Pauses short enough for tests; everything else as shipped. */
export const testSettings: InstallSettings = {
  ...defaultInstallSettings,
  // The start of a thread is most of what a small install takes; tests of the threads ask for two.
  workers: 1,
  backoffMs: 5,
  backoffMaxMs: 20,
  retryAfterMaxMs: 2_000,
  headerTimeoutMs: 1_000,
  idleTimeoutMs: 1_000,
  throughputWindowMs: 500,
};

export interface BundleInput {
  /** A directory or an image file. */
  readonly input: string;
  readonly out: string;
  readonly version: string;
  readonly release: number;
  readonly definition?: Readonly<Record<string, unknown>>;
}

export async function bundleOf(input: BundleInput): Promise<BuildResult> {
  const { version, release } = input;
  const definition = checkDefinition({
    name: 'app',
    class: 'web',
    version,
    release,
    compressionLevel: 3,
    ...input.definition,
  });
  return await buildBundle({
    definition,
    input: input.input,
    out: input.out,
    sourceDateEpoch: 1_700_000_000,
    signers: [signerOf(new Uint8Array(32).fill(release))],
    workers: 1,
  });
}

export function offerOf(built: BuildResult, sources?: readonly string[]): Offer {
  return {
    artifactId: built.artifactId,
    manifest: built.manifest,
    manifestBytes: built.manifestBytes,
    sources: sources ?? [pathToFileURL(built.path).href],
    rolloutId: null,
    seq: 1,
    retryGeneration: 0,
  };
}

export interface HostOptions {
  readonly settings?: Partial<InstallSettings>;
  readonly run?: 'child' | 'here';
  readonly requestHeaders?: RequestHeaders | null;
  readonly slots?: Partial<DirectorySlotsOptions>;
}

/** The adapters of one host below `root`. */
export async function makeHost(root: string, options: HostOptions = {}) {
  await mkdir(join(root, 'state'), { recursive: true });
  const files = nodeFiles();
  const slots = createDirectorySlots({
    root,
    stateDirectory: join(root, 'state'),
    files,
    space: spaceOf,
    usedBytes: usedBytesOf,
    mountsBelow,
    openUp,
    reserveBytes: 0,
    reserveInodes: 0,
    newRootId: () => 'ab'.repeat(16),
    ...options.slots,
  });
  const boot = createDirectoryBootControl({ root, files });
  const children: number[] = [];
  const installer = createDirectoryInstaller({
    root,
    slots,
    settings: { ...testSettings, ...options.settings },
    requestHeaders: options.requestHeaders ?? null,
    run: options.run ?? 'here',
    onChild: (pid) => children.push(pid),
  });
  const progress: Progress[] = [];
  const never = new AbortController().signal;
  return {
    root,
    layout: directoryLayout(root),
    slots,
    boot,
    installer,
    children,
    progress,
    async download(offer: Offer, signal: AbortSignal = never): Promise<DownloadResult> {
      const slot = await slots.targetFor(offer.artifactId);
      await slots.begin(offer, slot);
      return await installer.download(offer, slot, (step) => progress.push(step), signal);
    },
    async verify(offer: Offer, signal: AbortSignal = never): Promise<void> {
      await installer.verify(offer, offer.artifactId, (step) => progress.push(step), signal);
    },
    /** Everything up to the commit. */
    async install(offer: Offer): Promise<DownloadResult> {
      const result = await this.download(offer);
      await this.verify(offer);
      await boot.switchTo(offer.artifactId);
      await boot.commit(offer.artifactId);
      await slots.mark(offer.artifactId, 'good', null);
      return result;
    },
    read: (path: string): Promise<string> => readFile(join(root, 'current', path), 'utf8'),
  };
}
