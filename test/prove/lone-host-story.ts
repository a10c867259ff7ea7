/**
 * The story that the shipped agent lives through in the families with real processes: it installs version 2 on a host that runs
 * version 1, commits it, is ordered back, and tries a version that turns out bad. What has to hold after any fault in it.
 */
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { type LoneHost, treeDigest } from '#/test/support/lone-host/lone-host.ts';
import type { Release, Releases } from '#/test/support/lone-host/releases.ts';
import type { Finding } from './family.ts';

/** What the operator was told so far. */
export interface Told {
  /** Artifacts that may be live: what was confirmed is durable until the next order. */
  readonly mayBeLive: readonly string[];
  /** The bad version was told to be rolled back. */
  readonly isOver: boolean;
}

export interface Digests {
  readonly byArtifact: ReadonlyMap<string, string>;
}

/** Digests of what the versions really hold, from the trees that they were built of. */
export async function digestsOf(directory: string, releases: Releases): Promise<Digests> {
  const byArtifact = new Map<string, string>();
  for (const [number, release] of [
    releases.v1,
    releases.v2,
    releases.bad,
    releases.next,
  ].entries()) {
    byArtifact.set(release.artifactId, await treeDigest(join(directory, `tree-${number + 1}`)));
  }
  return { byArtifact };
}

/** The host with version 1, its agent ended. */
export async function prepare(host: LoneHost, releases: Releases): Promise<void> {
  host.start();
  await host.rest();
  const end = await host.install(releases.v1.file);
  if (end?.phase !== 'confirmed') throw new Error(`version 1: ${JSON.stringify(end)}`);
  await host.rest();
  await host.stop();
}

type Tell = (isOver: boolean, ...may: readonly Release[]) => void;

/** A part of the story that begins and ends at rest. */
export interface Chapter {
  readonly title: string;
  /** What is live before. */
  readonly from: (releases: Releases) => Release;
  /** False when the agent did not live through it. */
  readonly act: (host: LoneHost, releases: Releases, tell: Tell) => Promise<boolean>;
}

export const chapters: readonly Chapter[] = [
  {
    title: 'an update',
    from: ({ v1 }) => v1,
    async act(host, { v1, v2 }, tell) {
      tell(false, v1, v2);
      if ((await host.install(v2.file))?.phase !== 'confirmed') return false;
      tell(false, v2);
      return (await host.rest()) !== null;
    },
  },
  {
    title: 'the way back',
    from: ({ v2 }) => v2,
    async act(host, { v1, v2 }, tell) {
      tell(false, v2, v1);
      if ((await host.order({ kind: 'rollback' }))?.phase !== 'confirmed') return false;
      tell(false, v1);
      return (await host.rest()) !== null;
    },
  },
  {
    title: 'a bad version',
    from: ({ v1 }) => v1,
    async act(host, { v1, bad }, tell) {
      if ((await host.install(bad.file))?.phase !== 'rolled-back') return false;
      tell(true, v1);
      return (await host.rest()) !== null;
    },
  },
];

/**
 * Lives through some chapters in a row as far as the agent lives. `onTold` hears after each answer what may be live from then on.
 * Resolves with whether it lived through all of them.
 */
export async function live(
  host: LoneHost,
  releases: Releases,
  parts: readonly Chapter[],
  onTold: (told: Told) => void = () => undefined,
): Promise<boolean> {
  const tell: Tell = (isOver, ...may) => {
    onTold({ isOver, mayBeLive: may.map((one) => one.artifactId) });
  };
  const [first] = parts;
  if (first !== undefined) tell(false, first.from(releases));
  if ((await host.rest()) === null) return false;
  for (const { act } of parts) if (!(await act(host, releases, tell))) return false;
  return true;
}

/** What is wrong with the disk of a host whose agent does not run: what is live has to be whole, at any moment. */
export async function diskFindings(
  host: LoneHost,
  digests: Digests,
  name: string,
): Promise<readonly Finding[]> {
  const found = await host.live();
  if (found === null) return [{ fault: 'wrong', text: `${name}: nothing is live` }];
  if (digests.byArtifact.get(found.artifactId) === found.digest) return [];
  const text = `${name}: live ${found.artifactId.slice(0, 8)} is not whole (${found.digest})`;
  return [{ fault: 'wrong', text }];
}

/**
 * Starts the agent again after a fault, without any: it has to come to rest on one good version of those that may be live, with
 * nothing left lying about, and to do what it is told. `mayAskForHelp`: a disk that answered with an error is a reason to ask for
 * attention, also after the restart; once the operator has looked it has to go on.
 */
export async function recoveryFindings(
  host: LoneHost,
  releases: Releases,
  digests: Digests,
  told: Told,
  name: string,
  mayAskForHelp = false,
): Promise<readonly Finding[]> {
  host.start();
  try {
    let status = await host.rest(RECOVERY_TIMEOUT_MS);
    if (mayAskForHelp && status?.state === 'needs-attention') {
      await host.tell({ kind: 'clear' });
      status = await host.restAfterHelp(RECOVERY_TIMEOUT_MS);
    }
    if (status?.state !== 'idle') {
      const last = (await host.status().catch(() => null)) ?? null;
      const at = `${last?.state ?? 'no agent'} ${last?.step ?? ''} ${last?.why ?? ''}`;
      return [{ fault: 'stuck', text: `${name}: after the restart: ${at}` }];
    }
    const findings = [...(await diskFindings(host, digests, name))];
    const liveId = (await host.live())?.artifactId ?? null;
    if (liveId !== null && !told.mayBeLive.includes(liveId)) {
      const text = `${name}: live is ${liveId.slice(0, 8)}, told was ${told.mayBeLive.map((id) => id.slice(0, 8)).join(' or ')}`;
      findings.push({ fault: 'lost', text });
    }
    if (status.live?.artifactId !== liveId) {
      const observes = status.observeOnly ? ', only observes' : '';
      const text = `${name}: says ${String(status.live?.artifactId)}${observes} (${status.why}), live is ${String(liveId)}`;
      findings.push({ fault: 'wrong', text });
    }
    if (existsSync(join(host.stateDirectory, 'ticket'))) {
      findings.push({ fault: 'wrong', text: `${name}: a ticket is left` });
    }
    if (told.isOver && !status.denied.some((one) => one.artifactId === releases.bad.artifactId)) {
      findings.push({ fault: 'lost', text: `${name}: the bad version is not on the deny-list` });
    }
    const end = await host.install(releases.next.file);
    if (end?.phase !== 'confirmed') {
      const text = `${name}: after all the agent does not work: ${JSON.stringify(end)}`;
      findings.push({ fault: 'stuck', text });
    }
    return findings;
  } finally {
    await host.kill();
  }
}

const RECOVERY_TIMEOUT_MS = 60_000;
