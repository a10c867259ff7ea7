/** A host as its agent builds it: identity on disk, the line to control, the verifier with its cache. Only its clock is a test's. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { systemClock } from '#/agent/adapters/clock.ts';
import { createControlLink, type HostControlLink } from '#/agent/adapters/control-link.ts';
import { enrol } from '#/agent/adapters/enrol.ts';
import { nodeFiles } from '#/agent/adapters/file-port.ts';
import { type HostIdentity, identityStore, loadIdentity } from '#/agent/adapters/identity.ts';
import { oneAtATime } from '#/agent/adapters/one-at-a-time.ts';
import { systemRandom } from '#/agent/adapters/random.ts';
import { createTransport } from '#/agent/adapters/transport.ts';
import { type AgentTrust, createTrust, type TrustNotice } from '#/agent/adapters/trust-client.ts';
import { createTrustFetch } from '#/agent/adapters/trust-fetch.ts';
import { createTrustStore } from '#/agent/adapters/trust-store.ts';
import { openDirectory } from '#/agent/adapters/durable.ts';
import { settingsFrom } from '#/agent/config.ts';
import type { Clock } from '#/agent/ports.ts';
import { sha256 } from '#/bundle/keys.ts';
import type { World } from '#/test/support/control/world.ts';

export const MACHINE = 'ab'.repeat(32);

export class RealHost {
  readonly directory: string = mkdtempSync(join(tmpdir(), 'sb-host-'));
  readonly notices: TrustNotice[] = [];
  readonly signedTimes: number[] = [];
  /** How far the clock of the host is off. */
  offsetMs = 0;
  identity: HostIdentity;
  line: HostControlLink;
  trust: AgentTrust;
  #open: { close(): Promise<unknown> }[] = [];

  readonly clock: Clock = { ...systemClock(), wallMs: () => Date.now() + this.offsetMs };

  static async enrol(world: World, group = 'web', offsetMs = 0): Promise<RealHost> {
    return new RealHost().#enrol(world, group, offsetMs);
  }

  private constructor() {
    // Set by #enrol before anybody sees this.
    this.identity = undefined as never;
    this.line = undefined as never;
    this.trust = undefined as never;
  }

  async #enrol(world: World, group: string, offsetMs: number): Promise<RealHost> {
    this.offsetMs = offsetMs;
    const { token } = await world.admin.call('joinTokenCreate', {
      body: { group: group as never, ttlSeconds: 600 },
    });
    const root = world.control.engine.fleet.trust.get('metadata/1.root.json')!;
    const transport = createTransport({
      caPem: null,
      connectTimeoutMs: 5_000,
      headersTimeoutMs: 10_000,
      bodyTimeoutMs: 10_000,
      userAgent: 'test',
    });
    this.identity = await enrol({
      invitation: {
        controlUrls: [world.control.url],
        token,
        rootSha256: sha256(root),
        caPem: null,
      },
      store: this.store(),
      transport,
      random: systemRandom(),
      wallMs: () => this.clock.wallMs(),
      machine: MACHINE,
      class: 'web',
      arch: 'amd64',
      agentVersion: '0.1.0',
      facts: {},
      replace: false,
    });
    await transport.close();
    await this.start();
    return this;
  }

  store() {
    return identityStore(nodeFiles(), this.directory);
  }

  /** As the agent starts: everything is read from disk. */
  async start(): Promise<void> {
    await this.stop();
    const identity = await loadIdentity(this.store(), MACHINE, systemRandom());
    if (identity === null) throw new Error('not enrolled');
    this.identity = identity;
    const [url] = identity.controlUrls;
    const fetch = createTrustFetch({ url: `${url}/agent/v1/trust/` });
    await openDirectory(nodeFiles(), join(this.directory, 'trust'));
    this.trust = oneAtATime(
      createTrust({
        anchor: { root: identity.rootBytes, targets: null },
        fetch,
        store: createTrustStore(nodeFiles(), join(this.directory, 'trust')),
        owner: identity.host,
        arch: 'amd64',
        agent: 1_000_000,
        builtAtMs: 0,
        onNotice: (notice) => this.notices.push(notice),
      }),
    );
    this.line = createControlLink({
      settings: settingsFrom([{ file: 'test', text: '[poll]\nmin_interval_ms = 100\n' }]).settings,
      identity,
      clock: this.clock,
      random: systemRandom(),
      agentVersion: '0.1.0',
      standing: () => ({ running: null, healthy: true, seq: 0, factsHash: null }),
      onSignedTime: (signedMs) => {
        this.signedTimes.push(signedMs);
        void this.trust.observeSignedTime(signedMs, this.clock.wallMs());
      },
    });
    this.#open = [this.line, fetch];
  }

  async stop(): Promise<void> {
    for (const one of this.#open.splice(0)) await one.close();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop();
    rmSync(this.directory, { recursive: true, force: true });
  }
}
