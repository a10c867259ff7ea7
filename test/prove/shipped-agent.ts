/** The agent as it is shipped, built into a directory of its own: no other build changes anything under a run. */
import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';

const repository = resolve(import.meta.dirname, '../..');

export interface AgentBuilder {
  /** The path of agent.mjs; built at the first call. */
  readonly program: () => Promise<string>;
  remove(): void;
}

/** `given`: a program that is built already. */
export function agentBuilder(given: string | null): AgentBuilder {
  let directory: string | null = null;
  return {
    program() {
      if (given !== null) return Promise.resolve(resolve(given));
      if (directory === null) {
        directory = mkdtempSync(join(tmpdir(), 'prove-agent-'));
        execFileSync(
          process.execPath,
          [join(repository, 'packaging/build.ts'), '--out', directory],
          { cwd: repository, stdio: ['ignore', 'ignore', 'inherit'] },
        );
      }
      return Promise.resolve(join(directory, 'agent.mjs'));
    },
    remove() {
      if (directory !== null) rmSync(directory, { recursive: true, force: true });
    },
  };
}
