/**
 * Plants one bug into this process: `SIM_MUTANT=NAME node --import ./test/sim/plant.ts test/sim/main.ts`. The text of the
 * modules is changed as they are loaded, so that the simulation runs a broken agent or control and the files stay as they are.
 */
import { registerHooks } from 'node:module';
import { simMutants } from './mutant-table.ts';

const say = (line: string): void => void process.stdout.write(`${line}\n`);
const name = process.env['SIM_MUTANT'] ?? '';
const mutant = simMutants.find((one) => one.name === name);
if (mutant === undefined) throw new Error(`there is no mutant ${name}`);
const root = new URL('../../', import.meta.url).href;
const left = new Set(mutant.edits);

registerHooks({
  load(url, context, nextLoad) {
    const loaded = nextLoad(url, context);
    const edits = mutant.edits.filter((edit) => url === root + edit.file);
    if (edits.length === 0) return loaded;
    let source = Buffer.from((loaded.source ?? '') as Uint8Array).toString('utf8');
    for (const edit of edits) {
      const parts = source.split(edit.from);
      if (parts.length !== 2)
        throw new Error(`${edit.file} has ${parts.length - 1} times: ${edit.from}`);
      source = parts.join(edit.to);
      left.delete(edit);
    }
    return { ...loaded, source };
  },
});
process.on('exit', (code) => {
  if (code !== 2 && left.size > 0) {
    say(`not loaded: ${[...left].map((edit) => edit.file).join(', ')}`);
    process.exitCode = 2;
  }
});
