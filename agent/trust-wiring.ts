/** The verifier of this host: its anchor, its line to the repository, its durable state. */
import { join } from 'node:path';
import type { TrustFetch } from '#/bundle/trust/client.ts';
import type { LogMemory } from '#/bundle/trust/logged.ts';
import { Problem } from '#/protocol/errors.ts';
import { openDirectory, readFile } from './adapters/durable.ts';
import type { HostIdentity } from './adapters/identity.ts';
import { oneAtATime } from './adapters/one-at-a-time.ts';
import { type AgentTrust, createTrust, type TrustNotice } from './adapters/trust-client.ts';
import { createTrustFetch } from './adapters/trust-fetch.ts';
import { createTrustStore } from './adapters/trust-store.ts';
import type { Settings } from './config.ts';
import type { FilePort, Trust } from './ports.ts';

export interface TrustWiring {
  readonly files: FilePort;
  readonly settings: Settings;
  readonly identity: HostIdentity | null;
  readonly owner: string;
  readonly controlUrl: () => string | null;
  readonly caPem: string | null;
  readonly traits: { readonly arch: 'amd64' | 'arm64'; readonly agent: number };
  readonly builtAtMs: number;
  readonly onNotice: (notice: TrustNotice) => void;
}

const ANCHOR_MAX_BYTES = 2 * 1024 * 1024;
/** Where control serves the repository (protocol/api.ts, trustMetadata and trustTarget). */
const REPOSITORY_PATH = '/agent/v1/trust/';

/** The verifier, and the end of its connections. Without any anchor every offer is refused. */
export async function openTrust(wiring: TrustWiring): Promise<{
  readonly port: Trust;
  /** The verifier as more than the port; null without an anchor. */
  readonly verifier: AgentTrust | null;
  /** The newest tree of the audit log that was seen, for reports. */
  seenLog(): LogMemory | null;
  close(): Promise<void>;
}> {
  const { files, settings, identity } = wiring;
  const directory = join(settings.state.directory, 'trust');
  await openDirectory(files, settings.state.directory).catch(() => undefined);
  await openDirectory(files, directory).catch(() => undefined);
  const anchors = settings.trust.anchorDirectory;
  const root =
    identity?.rootBytes ?? (await readFile(files, join(anchors, 'root.json'), ANCHOR_MAX_BYTES));
  const targets = await readFile(files, join(anchors, 'targets.json'), ANCHOR_MAX_BYTES);
  if (root === null) {
    return {
      port: withoutAnchor(anchors),
      verifier: null,
      seenLog: () => null,
      close: () => Promise.resolve(),
    };
  }
  const fetch = repositoryOf(wiring);
  const verifier = createTrust({
    anchor: { root, targets },
    fetch,
    store: createTrustStore(files, directory),
    owner: wiring.owner,
    ...wiring.traits,
    builtAtMs: wiring.builtAtMs,
    onNotice: wiring.onNotice,
    sealSecrets: () => identity?.sealSecrets() ?? [],
  });
  const port = oneAtATime(verifier);
  return { port, verifier: port, seenLog: () => port.seenLog(), close: () => fetch.close() };
}

/** The repository of whichever address of control answers now. */
function repositoryOf({ controlUrl, caPem }: TrustWiring): TrustFetch & { close(): Promise<void> } {
  const opened = new Map<string, ReturnType<typeof createTrustFetch>>();
  const current = (): TrustFetch => {
    const url = controlUrl();
    if (url === null) throw new Problem('E_UNAVAILABLE', 'this host has no control to ask');
    const known = opened.get(url);
    if (known !== undefined) return known;
    const made = createTrustFetch({
      url: `${url}${REPOSITORY_PATH}`,
      ...(caPem === null ? {} : { ca: caPem }),
    });
    opened.set(url, made);
    return made;
  };
  return {
    async metadata(name, maxBytes) {
      return await current().metadata(name, maxBytes);
    },
    async target(name, maxBytes) {
      return await current().target(name, maxBytes);
    },
    async log(path, maxBytes) {
      return (await current().log?.(path, maxBytes)) ?? null;
    },
    async close() {
      for (const fetch of opened.values()) await fetch.close();
    },
  };
}

function withoutAnchor(anchors: string): Trust {
  const refuse = (): Promise<never> => {
    const message = `no trust anchor: the host is not enrolled, and ${anchors}/root.json is not there`;
    return Promise.reject(new Problem('E_CONFIG', message));
  };
  return { resolve: refuse, resolveFile: refuse, raiseFloor: refuse };
}
