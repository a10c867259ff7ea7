/** Starts an install in a child and prints the pid of that child: the agent that a test kills. */
import { openBundleFile } from '#/test/support/install/open-bundle-file.ts';
import { makeHost } from '#/test/support/install/host.ts';

interface Task {
  readonly root: string;
  readonly bundle: string;
  readonly url: string;
}

const task: Task = JSON.parse(Buffer.from(process.argv[2] ?? '', 'base64').toString());
const host = await makeHost(task.root, { run: 'child', settings: { idleTimeoutMs: 60_000 } });
const offer = await openBundleFile(task.bundle, [task.url]);
const download = host.download(offer);
const timer = setInterval(() => {
  const [pid] = host.children;
  if (pid === undefined) return;
  clearInterval(timer);
  process.stdout.write(`${pid}\n`);
}, 5);
await download;
