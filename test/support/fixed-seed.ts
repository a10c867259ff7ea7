/**
 * Properties are tried with one seed, so that a run of the tests says something about the commit and not about its luck.
 * `SEED=N npm test` takes another one; the fuzzer and the simulation look for fresh ones.
 */
import fc from 'fast-check';

fc.configureGlobal({ ...fc.readConfigureGlobal(), seed: Number(process.env['SEED'] ?? 1) });
