/** The client with the agent's rules against a simulated repository, and the check that its state only moves forward. */
import { expect } from 'vitest';
import {
  type CacheNames,
  findTarget,
  loadRootChain,
  refresh,
  type Session,
} from '#/bundle/trust/client.ts';
import { agentRules } from '#/bundle/trust/rules.ts';
import type { TrustedSet } from '#/bundle/trust/trusted-set.ts';
import { isProblem } from '#/protocol/errors.ts';
import { memoryStore, NOW_MS } from '#/test/support/trust-world.ts';
import type { TufSimulator } from '#/test/support/tuf-simulator.ts';

export const cacheNames: CacheNames = {
  root: (version) => `root.${version}.json`,
  role: (role) => `role.${role}.json`,
};

/** A host: the anchor is the first root that the simulator served when the host was made. */
export class TufHost {
  readonly store = memoryStore();
  readonly equivocations: string[] = [];
  readonly #sim: TufSimulator;
  readonly #anchor: Uint8Array;

  constructor(sim: TufSimulator) {
    this.#sim = sim;
    this.#anchor = sim.files.get('metadata/1.root.json') ?? new Uint8Array();
  }

  session(nowSeconds = NOW_MS / 1000): Session {
    return {
      fetch: this.#sim.fetch(),
      store: this.store,
      names: cacheNames,
      now: nowSeconds,
      onEquivocation: (role) => this.equivocations.push(role),
    };
  }

  /** As after a restart: everything from anchor and cache. */
  async refresh(nowSeconds?: number): Promise<TrustedSet> {
    const chain = await loadRootChain(this.#anchor, agentRules, this.store, cacheNames);
    return refresh(chain, this.session(nowSeconds));
  }

  async find(path: string, nowSeconds?: number): Promise<string> {
    const set = await this.refresh(nowSeconds);
    return (await findTarget(set, path, this.session(nowSeconds))).role;
  }

  /** Versions in the cache, by file name. */
  versions(): Map<string, number> {
    return new Map(
      [...this.store.files].map(([name, bytes]) => {
        const file = JSON.parse(Buffer.from(bytes).toString()) as { signed: { version: number } };
        return [name, file.signed.version];
      }),
    );
  }

  /** Runs what must be refused: the code is `code`, and no version in the cache went down or vanished. */
  async refuses(code: string, run: () => Promise<unknown> = () => this.refresh()): Promise<void> {
    const before = this.versions();
    const outcome = await run().then(
      () => 'accepted',
      (error: unknown) => (isProblem(error) ? error.code : error),
    );
    expect(outcome).toBe(code);
    const after = this.versions();
    for (const [name, version] of before) {
      expect(after.get(name), name).toBeGreaterThanOrEqual(version);
    }
  }
}
