/** How the packages start Node for the agent: small rather than fast. `node test/bench/idle.ts` shows what they save. */
export const nodeFlags: readonly string[] = [
  '--max-semi-space-size=1',
  '--optimize-for-size',
  '--max-lazy',
  '--no-warnings',
];
