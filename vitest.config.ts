import { defineConfig } from 'vitest/config';

/** Each tier is a project, so that `vitest --project unit` runs one of them. */
const tier = (name: string, testTimeout: number, include = [`test/${name}/**/*.test.ts`]) => ({
  test: { name, include, testTimeout, hookTimeout: testTimeout, pool: 'forks' as const },
});

export default defineConfig({
  test: {
    projects: [
      tier('tidy', 30_000, ['test/tidy.test.ts']),
      tier('unit', 10_000),
      tier('model', 120_000),
      tier('conformance', 60_000),
      tier('fault', 180_000),
      tier('attack', 120_000),
      tier('integration', 120_000),
      tier('sim', 180_000),
      tier('e2e', 300_000),
    ],
  },
});
