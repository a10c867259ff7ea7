import { type AgentTrust, createTrust } from '#/agent/adapters/trust-client.ts';
import { memoryStore } from '#/test/support/trust-world.ts';
import type { TestHost, World } from './world.ts';

/** The verifier of a host of this control, as its agent builds it, with nothing remembered. */
export function verifierOf(
  world: World,
  host: TestHost,
  fetch: Parameters<typeof createTrust>[0]['fetch'],
): AgentTrust {
  return createTrust({
    anchor: { root: world.control.engine.fleet.trust.get('metadata/1.root.json')!, targets: null },
    fetch,
    store: memoryStore(),
    owner: host.id,
    arch: 'amd64',
    agent: 1_000_000,
    builtAtMs: 0,
    onNotice: () => undefined,
  });
}
