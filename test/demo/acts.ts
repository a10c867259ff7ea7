/** The acts of the demo: each drives the fleet with the commands an operator would use, and checks what it claims. */
import { readFileSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { HostDetail } from '#/protocol/host.ts';
import type { RolloutView } from '#/protocol/rollout.ts';
import type { ReleaseView } from '#/protocol/release.ts';
import { type Fleet, type FleetHost, REPOSITORY, waitFor } from '#/test/support/fleet/fleet.ts';
import type { Load } from '#/test/support/fleet/load.ts';
import { writePayload } from './payload.ts';
import { megabytes, type Screen, seconds } from './screen.ts';

const ROLLOUT_TIMEOUT_MS = 150_000;

export interface Stage {
  readonly fleet: Fleet;
  readonly screen: Screen;
  readonly small: boolean;
  readonly loads: Map<string, Load>;
}

export interface Version {
  readonly version: string;
  readonly release: number;
  readonly healthyForMs: number | null;
  /** 3000 unless given. */
  readonly soakMs?: number;
}

/** Builds, signs and imports one version, and says how long that took. */
export async function publish(stage: Stage, version: Version): Promise<ReleaseView> {
  const { fleet, screen } = stage;
  const name = version.version;
  screen.command(['switchback', 'bundle', 'build', `payload/${name}`, '--out', `${name}.bundle`]);
  const { release, builtMs, sizeBytes } = await publishVersion(fleet, stage.small, version);
  screen.line(
    `${name}: ${megabytes(sizeBytes)} bundle, built and signed in ${seconds(builtMs)}, artifact ${release.artifactId.slice(0, 12)}`,
  );
  return release;
}

/** The same without words: the payload is written, built with the CLI, and imported. */
export async function publishVersion(
  fleet: Fleet,
  small: boolean,
  version: Version,
): Promise<{ release: ReleaseView; builtMs: number; sizeBytes: number }> {
  const tree = join(fleet.directory, 'payload', version.version);
  writePayload({ repository: REPOSITORY, target: tree, small, ...version });
  const definition = join(fleet.directory, `${version.version}.toml`);
  writeFileSync(definition, definitionText(version, small));
  const file = join(fleet.directory, `${version.version}.bundle`);
  const startedAtMs = performance.now();
  await fleet.cli(['bundle', 'build', tree, '--definition', definition, '--out', file]);
  const builtMs = performance.now() - startedAtMs;
  const release = await fleet.json<ReleaseView>(['release', 'import', file]);
  return { release, builtMs, sizeBytes: statSync(file).size };
}

export function bundleFile(stage: Stage, version: string): string {
  return join(stage.fleet.directory, `${version}.bundle`);
}

function definitionText(version: Version, small: boolean): string {
  const node = small ? process.execPath : '{slot}/bin/node';
  return `name = "demo"
class = "demo"
arch = "any"
version = "${version.version}"
release = ${version.release}
# Quick to build; the default of 15 makes bundles about 5 % smaller and takes five times as long.
compressionLevel = 6

[activation]
kind = "process"
argv = ["${node}", "{slot}/app/server.mjs"]
stopTimeoutMs = 3000

[trial]
soakMs = ${version.soakMs ?? 3000}
deadlineMs = 30000
maxBoots = 2
control = "offline-ok"
`;
}

/** Pins a group and watches its rollout to an end; prints what happens while it does. */
export async function pinAndWatch(
  stage: Stage,
  group: string,
  version: string,
  reason: string,
): Promise<RolloutView> {
  const { fleet, screen } = stage;
  screen.command(['switchback', 'pin', group, version, '--reason', `"${reason}"`]);
  for (const load of stage.loads.values()) load.take();
  await fleet.cli(['pin', group, version, '--reason', reason]);
  const phases = new Map<string, string>();
  return waitFor(`the rollout of ${version} in ${group} ends`, ROLLOUT_TIMEOUT_MS, async () => {
    await printPhases(stage, group, phases);
    const { items } = await fleet.api().call('rolloutList', { query: { group } });
    const [newest] = items;
    return newest !== undefined && ['done', 'halted', 'paused', 'aborted'].includes(newest.state)
      ? newest
      : null;
  });
}

async function printPhases(stage: Stage, group: string, seen: Map<string, string>): Promise<void> {
  const { items } = await stage.fleet.api().call('hostList', { query: { group } });
  for (const view of items) {
    const host = stage.fleet.hosts.find((one) => one.id === view.id);
    const words = `${view.state}${view.runningVersion === null ? '' : `, runs ${view.runningVersion}`}`;
    if (host === undefined || seen.get(view.id) === words) continue;
    seen.set(view.id, words);
    stage.screen.line(`  ${host.name.padEnd(8)} ${words}`);
  }
}

/** Bytes that each host of a group moved for the version it runs, from the signed reports, and its service's longest silence. */
export async function printTransfers(stage: Stage, group: string, isFirst = false): Promise<void> {
  for (const host of stage.fleet.hosts.filter((one) => one.group === group)) {
    const timeline = await stage.fleet.api().call('hostTimeline', { params: { host: host.id } });
    const confirmed = timeline.items.find((entry) => entry.kind === 'confirmed');
    if (confirmed === undefined) throw new Error(`${host.name} reported no confirmed attempt`);
    const number = (key: string): number => Number(confirmed.evidence[key] ?? 0);
    const outages = stage.loads.get(host.name)?.take().outages ?? [];
    const longestMs = Math.max(0, ...outages.map((one) => one.durationMs));
    const silence = isFirst ? '' : `; longest time without an answer ${seconds(longestMs)}`;
    stage.screen.good(
      `${host.name.padEnd(8)} fetched ${megabytes(number('fetchedBytes'))}, reused ${megabytes(number('reusedBytes'))}${silence}`,
    );
  }
}

/** A claim of the demo: it ends the demo when it does not hold. */
export function expect(holds: boolean, claim: string): void {
  if (!holds) throw new Error(`this should hold, and does not: ${claim}`);
}

/** The last state change in the log of an agent. */
export function lastLoggedState(host: FleetHost): string {
  const tail = readFileSync(host.agent.logFile, 'utf8').slice(-16_384);
  return [...tail.matchAll(/"to":"([a-z-]+)"/g)].at(-1)?.[1] ?? '';
}

/** Distance of the flipped bits: small enough that no chunk which a host lacks stays whole. */
const TAMPER_EVERY_BYTES = 1024;

/** Flips bits in the chunks of a bundle, as a broken disk or a hostile mirror would; returns how many. */
export function tamper(from: string, to: string): number {
  const bytes = readFileSync(from);
  // The chunks stand behind the header of the last member; what is signed stands before it and stays whole.
  const start = bytes.indexOf('chunks.data') + 512;
  let flipped = 0;
  for (let at = start + 64; at < bytes.length - 1536; at += TAMPER_EVERY_BYTES) {
    bytes[at] = (bytes[at] ?? 0) ^ 1;
    flipped += 1;
  }
  writeFileSync(to, bytes);
  return flipped;
}

export async function hostDetail(fleet: Fleet, host: FleetHost): Promise<HostDetail> {
  return fleet.api().call('hostShow', { params: { host: host.id } });
}
