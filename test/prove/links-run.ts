/**
 * One end of a cable (links.ts), as a process in its namespace:
 * `serve BUNDLE ADDRESS` serves the file, prints its address, and ends with its input.
 * `install DIRECTORY BUNDLE URL...` prints `ready`, waits for a line, installs, prints `some` and `half` on the way, and at the end
 * how many bytes came in, and what went wrong.
 */
import { readFile } from 'node:fs/promises';
import { once } from 'node:events';
import { isProblem } from '#/protocol/errors.ts';
import { RECEIVED_FILE } from '#/test/support/cable.ts';
import { startFaultServer } from '#/test/support/fault-server/fault-server.ts';
import { makeHost } from '#/test/support/install/host.ts';
import { openBundleFile } from '#/test/support/install/open-bundle-file.ts';

/** The whole of it, with all tries. */
const LIMIT_MS = 60_000;
const PAUSE_MS = 200;
const LOOK_EVERY_MS = 20;

const say = (line: string): void => void process.stdout.write(`${line}\n`);
const [mode, ...args] = process.argv.slice(2);
if (mode === 'serve') await serve(args[0] ?? '', args[1] ?? '');
else await install(args[0] ?? '', args[1] ?? '', args.slice(2));
process.exit(0);

async function serve(bundle: string, address: string): Promise<void> {
  await using server = await startFaultServer(await readFile(bundle), () => null, null, address);
  say(server.url);
  process.stdin.resume();
  await once(process.stdin, 'end');
}

async function install(
  directory: string,
  bundle: string,
  sources: readonly string[],
): Promise<void> {
  const offer = await openBundleFile(bundle, sources);
  const host = await makeHost(directory, { settings: { attemptsPerSource: 3, connections: 2 } });
  say('ready');
  await once(process.stdin, 'data');
  const told = new Set<string>();
  const watch = setInterval(() => {
    const fetched = host.progress.at(-1)?.doneBytes ?? 0;
    if (fetched > 0) tell('some');
    if (fetched * 2 > offer.manifest.dataBytes) tell('half');
  }, LOOK_EVERY_MS);
  const tell = (word: string): void => {
    if (!told.has(word)) say(word);
    told.add(word);
  };
  const codes = new Set<string>();
  const signal = AbortSignal.timeout(LIMIT_MS);
  for (;;) {
    try {
      await host.download(offer, signal);
      await host.verify(offer, signal);
      break;
    } catch (error) {
      if (signal.aborted) break;
      if (!isProblem(error)) throw error;
      codes.add(error.code);
      await new Promise((resolve) => setTimeout(resolve, PAUSE_MS));
    }
  }
  clearInterval(watch);
  say(`ended ${(await readFile(RECEIVED_FILE, 'utf8')).trim()} ${[...codes].join(' ')}`);
}
