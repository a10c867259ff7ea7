import { availableParallelism } from 'node:os';
import { defineConfig } from 'vitest/config';

/**
 * Each tier is a project, so that `vitest --project unit` runs one of them. The limits only end what hangs: they are far
 * above what a test takes, because machines are busy.
 */
const tier = (name: string, testTimeout: number, include = [`test/${name}/**/*.test.ts`]) => ({
  test: {
    name,
    include,
    testTimeout,
    hookTimeout: testTimeout,
    pool: 'forks' as const,
    setupFiles: ['test/support/fixed-seed.ts'],
  },
});

export default defineConfig({
  test: {
    // Most of the long tests wait for processes that they started: two side by side, also where there are two cores.
    maxWorkers: Math.max(2, availableParallelism() - 1),
    projects: [
      tier('tidy', 120_000, ['test/tidy.test.ts']),
      tier('unit', 60_000),
      tier('model', 300_000),
      tier('conformance', 300_000),
      tier('fault', 600_000),
      tier('attack', 900_000),
      tier('integration', 300_000),
      tier('sim', 600_000),
      tier('e2e', 600_000),
    ],
  },
});
