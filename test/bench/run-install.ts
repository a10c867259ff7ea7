/** One install as the agent does it, with its child; prints what it took as JSON. For test/bench/install.ts. */
import { readFileSync } from 'node:fs';
import { makeHost } from '#/test/support/install/host.ts';
import { openBundleFile } from '#/test/support/install/open-bundle-file.ts';
import { defaultInstallSettings } from '#/agent/install/settings.ts';

const [root = '', bundle = '', url = '', mode = ''] = process.argv.slice(2);
const host = await makeHost(root, { run: 'child', settings: defaultInstallSettings });
const offer = await openBundleFile(bundle, [url]);
let peakKb = 0;
let cpuMs = 0;
const TICKS_PER_SECOND = 100;

/** Peak memory and CPU of the children, read while they run. */
const timer = setInterval(() => {
  const pid = host.children.at(-1);
  if (pid === undefined) return;
  try {
    const status = readFileSync(`/proc/${pid}/status`, 'utf8');
    peakKb = Math.max(peakKb, Number(/VmHWM:\s+(\d+)/.exec(status)?.[1] ?? 0));
    const fields = readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ')[1]?.split(' ') ?? [];
    cpuMs = ((Number(fields[11]) + Number(fields[12])) * 1000) / TICKS_PER_SECOND;
  } catch {
    // It has ended since.
  }
}, 10);

const startedMs = performance.now();
const result = await host.download(offer);
const downloadMs = performance.now() - startedMs;
const downloadCpuMs = cpuMs;
let verifyMs = 0;
if (mode === 'verify') {
  const before = performance.now();
  await host.verify(offer);
  verifyMs = performance.now() - before;
}
clearInterval(timer);
process.stdout.write(
  JSON.stringify({
    downloadMs,
    verifyMs,
    downloadCpuMs,
    peakMb: peakKb / 1024,
    agentMb: process.memoryUsage.rss() / 1024 / 1024,
    fetchedBytes: result.fetchedBytes,
  }),
);
