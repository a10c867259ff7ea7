/** Plants one text mutant into this process: `PROVE_MUTANT=NAME node --import ./test/prove/plant.ts test/prove/main.ts …`. */
import { registerHooks } from 'node:module';
import { textMutants } from './text-mutants.ts';

const mutant = textMutants.find((one) => one.name === process.env['PROVE_MUTANT']);
if (mutant === undefined) throw new Error('there is no such mutant');
const url = new URL(`../../${mutant.file}`, import.meta.url).href;

registerHooks({
  load(loading, context, nextLoad) {
    const loaded = nextLoad(loading, context);
    if (loading !== url) return loaded;
    const parts = Buffer.from((loaded.source ?? '') as Uint8Array)
      .toString('utf8')
      .split(mutant.from);
    if (parts.length !== 2)
      throw new Error(`${mutant.file} has ${parts.length - 1} times the text`);
    return { ...loaded, source: parts.join(mutant.to) };
  },
});
