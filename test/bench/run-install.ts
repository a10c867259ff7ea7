/**
 * One step of an install as the agent does it, with the child that is shipped (dist/install-child.mjs). Prints what it took
 * as JSON. For test/bench/main.ts, which builds it beside copies of the shipped files.
 */
import { createHash } from 'node:crypto';
import { mkdirSync } from 'node:fs';
import { open } from 'node:fs/promises';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { createDirectoryBootControl } from '#/agent/adapters/boot-directory.ts';
import { nodeFiles } from '#/agent/adapters/file-port.ts';
import { mountsBelow, spaceOf, usedBytesOf } from '#/agent/adapters/file-system.ts';
import { createDirectorySlots } from '#/agent/adapters/slots-directory.ts';
import { createDirectoryInstaller } from '#/agent/install/installer.ts';
import { defaultInstallSettings, type InstallSettings } from '#/agent/install/settings.ts';
import type { Offer } from '#/agent/ports.ts';
import { LEADING_BYTES, locateMembers } from '#/bundle/container.ts';
import { parseManifest } from '#/bundle/manifest.ts';
import type { ArtifactId } from '#/protocol/ids.ts';

const { positionals, values: flags } = parseArgs({
  allowPositionals: true,
  options: {
    'no-patches': { type: 'boolean', default: false },
    cap: { type: 'string', default: '0' },
    priority: { type: 'string', default: 'low' },
  },
});
const [step = '', root = '', bundle = '', url = ''] = positionals;

async function offerOf(path: string): Promise<Offer> {
  await using file = await open(path);
  const { buffer } = await file.read(Buffer.alloc(LEADING_BYTES), 0, LEADING_BYTES, 0);
  const located = locateMembers(buffer);
  if ('needBytes' in located) throw new Error('the bundle has an unusual head');
  const { offset, sizeBytes } = located.manifest;
  const manifestBytes = Uint8Array.from(buffer.subarray(offset, offset + sizeBytes));
  return {
    artifactId: createHash('sha256').update(manifestBytes).digest('hex') as ArtifactId,
    manifest: parseManifest(manifestBytes),
    manifestBytes,
    sources: [url],
    rolloutId: null,
    seq: 1,
    retryGeneration: 0,
  };
}

mkdirSync(join(root, 'state'), { recursive: true });
const files = nodeFiles();
const slots = createDirectorySlots({
  root,
  stateDirectory: join(root, 'state'),
  files,
  space: spaceOf,
  usedBytes: usedBytesOf,
  mountsBelow,
  reserveBytes: 0,
  reserveInodes: 0,
  newRootId: () => 'ab'.repeat(16),
});
const cap = Number(flags.cap) * 1e6;
const level = flags.priority as InstallSettings['priority']['cpu'];
const installer = createDirectoryInstaller({
  root,
  slots,
  settings: {
    ...defaultInstallSettings,
    bandwidthBytesPerSecond: cap === 0 ? null : cap,
    patches: !flags['no-patches'],
    priority: { cpu: level, io: level },
  },
  requestHeaders: null,
  run: 'child',
});
const offer = await offerOf(bundle);
const never = new AbortController().signal;
const boot = createDirectoryBootControl({ root, files });

/** The first switch of a host is one; with a version that is live, so many there and back. */
const SWITCHES = 51;
const median = (values: readonly number[]): number =>
  values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)] ?? 0;

async function perform(): Promise<Record<string, number | string | null>> {
  switch (step) {
    case 'download': {
      await slots.begin(offer, offer.artifactId);
      const result = await installer.download(offer, offer.artifactId, () => undefined, never);
      const { failedSources, ...numbers } = result;
      return { ...numbers, failedSources: failedSources.length };
    }
    case 'verify':
      await installer.verify(offer, offer.artifactId, () => undefined, never);
      return {};
    case 'switch': {
      const old = await boot.observe();
      if (old.defaultSlot === null) {
        await boot.switchTo(offer.artifactId);
        return {};
      }
      const there: number[] = [];
      const back: number[] = [];
      for (let i = 0; i < SWITCHES; i += 1) {
        const startMs = performance.now();
        await boot.switchTo(offer.artifactId);
        const switchedMs = performance.now();
        await boot.rollBackTo(old.defaultSlot, offer.artifactId);
        there.push(switchedMs - startMs);
        back.push(performance.now() - switchedMs);
      }
      return { switchMs: median(there), rollbackMs: median(back) };
    }
    default:
      throw new Error(
        'usage: run-install download|verify|switch ROOT BUNDLE URL [--no-patches] [--cap MB_PER_SECOND] [--priority LEVEL]',
      );
  }
}

const startedMs = performance.now();
const outcome = await perform();
const stepMs = performance.now() - startedMs;
process.stdout.write(JSON.stringify({ stepMs, artifactId: offer.artifactId, ...outcome }));
