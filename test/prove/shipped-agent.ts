/** The agent as it is shipped: the built files, copied aside, so that a build meanwhile changes nothing under a run. */
import { execFileSync } from 'node:child_process';
import { cpSync, mkdtempSync, rmSync } from 'node:fs';
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
        execFileSync(process.execPath, [join(repository, 'packaging/build.ts')], {
          cwd: repository,
          stdio: ['ignore', 'ignore', 'inherit'],
        });
        directory = mkdtempSync(join(tmpdir(), 'prove-agent-'));
        for (const name of ['agent', 'install-child', 'install-worker']) {
          cpSync(join(repository, `dist/${name}.mjs`), join(directory, `${name}.mjs`));
        }
      }
      return Promise.resolve(join(directory, 'agent.mjs'));
    },
    remove() {
      if (directory !== null) rmSync(directory, { recursive: true, force: true });
    },
  };
}
