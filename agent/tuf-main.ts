/** `agent tuf` as a program of its own: what the tuf-conformance suite is pointed at in a source tree. */
import { runTufCli } from './tuf-cli.ts';

process.exitCode = await runTufCli(process.argv.slice(2), {
  nowMs: () => Date.now(),
  printError: (line) => process.stderr.write(`${line}\n`),
});
