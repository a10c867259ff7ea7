/** One install as the agent does it, with its child; prints what it took as JSON. For test/bench/install.ts. */
import { createHash } from 'node:crypto';
import { mkdirSync, readFileSync } from 'node:fs';
import { open } from 'node:fs/promises';
import { join } from 'node:path';
import { nodeFiles } from '#/agent/adapters/file-port.ts';
import { mountsBelow, spaceOf, usedBytesOf } from '#/agent/adapters/file-system.ts';
import { createDirectorySlots } from '#/agent/adapters/slots-directory.ts';
import { createDirectoryInstaller } from '#/agent/install/installer.ts';
import { defaultInstallSettings } from '#/agent/install/settings.ts';
import type { Offer } from '#/agent/ports.ts';
import { LEADING_BYTES, locateMembers } from '#/bundle/container.ts';
import { parseManifest } from '#/bundle/manifest.ts';
import type { ArtifactId } from '#/protocol/ids.ts';

const [root = '', bundle = '', url = '', mode = ''] = process.argv.slice(2);
const TICKS_PER_SECOND = 100;

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

mkdirSync(join(root, 'state'));
const slots = createDirectorySlots({
  root,
  stateDirectory: join(root, 'state'),
  files: nodeFiles(),
  space: spaceOf,
  usedBytes: usedBytesOf,
  mountsBelow,
  reserveBytes: 0,
  reserveInodes: 0,
});
const children: number[] = [];
const installer = createDirectoryInstaller({
  root,
  slots,
  settings: defaultInstallSettings,
  requestHeaders: null,
  run: 'child',
  onChild: (pid) => children.push(pid),
});
const offer = await offerOf(bundle);
let peakKb = 0;
let cpuMs = 0;

/** Memory of a process, pages that it shares with others counted by its share: the sum over processes is true. */
function shareKb(pid: string): number {
  const rollup = readFileSync(`/proc/${pid}/smaps_rollup`, 'utf8');
  return Number(/^Pss:\s+(\d+)/m.exec(rollup)?.[1] ?? 0);
}

/** Peak memory of both processes and CPU of the child that runs, read while it does. */
const timer = setInterval(() => {
  try {
    const pids = ['self', String(children.at(-1))];
    peakKb = Math.max(
      peakKb,
      pids.map(shareKb).reduce((sum, kb) => sum + kb, 0),
    );
    const stat = readFileSync(`/proc/${children.at(-1)}/stat`, 'utf8');
    const fields = stat.split(') ')[1]?.split(' ') ?? [];
    cpuMs = ((Number(fields[11]) + Number(fields[12])) * 1000) / TICKS_PER_SECOND;
  } catch {
    // Not started yet, or ended since.
  }
}, 40);

const never = new AbortController().signal;
await slots.begin(offer, offer.artifactId);
const startedMs = performance.now();
const result = await installer.download(offer, offer.artifactId, () => undefined, never);
const downloadMs = performance.now() - startedMs;
const downloadCpuMs = cpuMs;
const downloadPeakMb = peakKb / 1024;
peakKb = 0;
const verifyStartedMs = performance.now();
if (mode === 'verify') {
  await installer.verify(offer, offer.artifactId, () => undefined, never);
}
clearInterval(timer);
process.stdout.write(
  JSON.stringify({
    downloadMs,
    verifyMs: performance.now() - verifyStartedMs,
    downloadCpuMs,
    verifyCpuMs: cpuMs,
    downloadPeakMb,
    verifyPeakMb: peakKb / 1024,
    fetchedBytes: result.fetchedBytes,
  }),
);
