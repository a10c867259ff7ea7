/** How the packages start Node for the agent: small rather than fast. `node test/bench/idle.ts` shows what they save. */
export const nodeFlags: readonly string[] = [
  '--max-semi-space-size=1',
  '--optimize-for-size',
  '--max-lazy',
  '--no-warnings',
  // The HTTP parser is the only WebAssembly: compiled as far as it is used, not again by threads that leave their memory behind.
  '--wasm-lazy-compilation',
  '--no-wasm-tier-up',
];

/** How the C library keeps memory for the agent: one arena for all threads, and what is free goes back. */
export const allocatorSettings: Readonly<Record<string, string>> = {
  MALLOC_ARENA_MAX: '1',
  MALLOC_MMAP_THRESHOLD_: '131072',
  MALLOC_TRIM_THRESHOLD_: '131072',
};
