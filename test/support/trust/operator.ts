/** The operator's program in this process, in a directory of its own, against a control that runs. */
import { randomBytes } from 'node:crypto';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { CliContext } from '#/control/cli/context.ts';
import { run } from '#/control/cli/run.ts';
import { encodeKeyFile, storedKeyOf, type StoredKey } from '#/control/trust/key-file.ts';
import type { KeyUse } from '#/control/trust/repository.ts';
import { decodeProposal } from '#/control/trust/proposal.ts';
import type { Proposal } from '#/protocol/proposal.ts';

export interface Ran {
  readonly exitCode: number;
  readonly stdout: string;
  readonly stderr: string;
}

export class Operator {
  readonly dir: string;
  readonly #url: () => string;
  readonly #token: string;

  constructor(dir: string, url: () => string, token: string) {
    this.dir = dir;
    this.#url = url;
    this.#token = token;
  }

  /** Runs a command line. Never throws. */
  async run(...args: readonly string[]): Promise<Ran> {
    let [stdout, stderr] = ['', ''];
    const output = (write: (text: string) => void) => ({
      write,
      isTty: false,
      columns: 100,
      rows: 24,
    });
    const context: CliContext = {
      env: { SWITCHBACK_URL: this.#url(), SWITCHBACK_TOKEN: this.#token, HOME: this.dir },
      cwd: this.dir,
      out: output((text) => (stdout += text)),
      err: output((text) => (stderr += text)),
      now: () => Date.now(),
      sleep: () => Promise.resolve(),
      signal: new AbortController().signal,
      randomHex: (bytes) => randomBytes(bytes).toString('hex'),
    };
    const exitCode = await run(args, context);
    return { exitCode, stdout, stderr };
  }

  /** As run, for a command that must succeed. */
  async ok(...args: readonly string[]): Promise<string> {
    const { exitCode, stdout, stderr } = await this.run(...args);
    if (exitCode !== 0) throw new Error(`${args.join(' ')}: ${exitCode} ${stderr}`);
    return stdout;
  }

  /** A key of its own, in a file of this name. */
  key(name: string, use: KeyUse): StoredKey {
    const key = storedKeyOf(use, randomBytes(32));
    writeFileSync(join(this.dir, name), encodeKeyFile([key]), { mode: 0o600 });
    return key;
  }

  proposal(name: string): Proposal {
    return decodeProposal(readFileSync(join(this.dir, name)));
  }
}
