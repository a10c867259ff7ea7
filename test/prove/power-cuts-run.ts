/**
 * One file system and the shipped agent on it, with power cuts: started by power-cuts.ts in a mount namespace of its own. Prints
 * its outcome as the last line, as JSON.
 */
import { mkdirSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { LoneHost } from '#/test/support/lone-host/lone-host.ts';
import { buildReleases } from '#/test/support/lone-host/releases.ts';
import {
  cutAt,
  type FileSystem,
  MountedImage,
  record,
  writeImage,
} from '#/test/support/power-disk/power-disk.ts';
import { treeState } from '#/test/support/power-disk/tree-state.ts';
import { simRandom } from '#/test/support/sim-host/sim-clock.ts';
import { drawn, type Finding } from './family.ts';
import type { CutsOutcome } from './power-cuts.ts';
import {
  diskFindings,
  digestsOf,
  chapters,
  live,
  prepare,
  recoveryFindings,
  type Told,
} from './lone-host-story.ts';

const [directory = '', fileSystem = 'ext4', program = '', countText = '', seedText = ''] =
  process.argv.slice(2);
const count = Number(countText);
const seed = Number(seedText);

const releases = await buildReleases(directory);
const digests = await digestsOf(directory, releases);
const at = join(directory, 'mount');
mkdirSync(at);
const volatile = join(directory, 'run');
const compileCache = join(directory, 'compile-cache');
const host = new LoneHost({ disk: at, volatile, program, releases, compileCache });

/** What was told, with the length of the disk's log at that moment. */
const marks: { readonly logBytes: number; readonly told: Told }[] = [];
let startedBytes = 0;
const recording = await record(directory, fileSystem as FileSystem, async (_at, position) => {
  try {
    await prepare(host, releases);
    startedBytes = position();
    host.start();
    const isDone = await live(host, releases, chapters, (now) => {
      marks.push({ logBytes: position(), told: now });
    });
    await host.stop();
    if (!isDone) {
      const said = readFileSync(join(volatile, 'agent.log'), 'utf8').slice(-2000);
      throw new Error(`the story does not come to its end:\n${said}`);
    }
  } catch (error) {
    // Whatever runs on the disk has to end before the disk does.
    await host.kill();
    process.stderr.write(`${String(error)}\n`);
    throw error;
  }
});

const { events, sizeBytes } = recording;
const first = events.findIndex(({ logBytes }) => logBytes >= startedBytes) + 1;
// Up to here nothing is cut: one image that all others begin with.
const base = join(directory, 'base');
const lastFlush = events.slice(0, first).findLastIndex(({ event }) => event.do === 'flush') + 1;
writeImage(base, sizeBytes, events.slice(0, lastFlush));
const points = Array.from({ length: events.length - first }, (_, index) => first + index);
const findings: Finding[] = [];
/** What the agent was started on: files that are the same, with the same told before, end the same. */
const recovered = new Set<string>();
let images = 0;
for (const point of chosen(points)) {
  findings.push(...(await tryCut(point)));
  images += 1;
}
process.stdout.write(`${JSON.stringify(outcome())}\n`);

function outcome(): CutsOutcome {
  const cases = events.length - first;
  return { cases, states: images, findings, differing: recovered.size };
}

/** Evenly drawn; more than once each, with other subsets, when more are wanted than there are. */
function chosen(all: readonly number[]): readonly number[] {
  const rounds = Math.ceil(count / all.length);
  return Array.from({ length: rounds }, (_, round) =>
    drawn(all, Math.ceil(count / rounds), seed + round),
  ).flat();
}

async function tryCut(point: number): Promise<readonly Finding[]> {
  const random = simRandom(seed * 7919 + point);
  const cut = cutAt(recording, point, () => random.unit());
  const name = `${fileSystem}, seed ${seed}, ${cut.name}`;
  const image = join(directory, 'image');
  writeImage(image, sizeBytes, cut.onDisk.slice(lastFlush), base);
  rmSync(volatile, { recursive: true, force: true });
  const endBytes = events[point - 1]?.logBytes ?? 0;
  const told = marks.findLast((mark) => mark.logBytes <= endBytes)?.told ?? {
    isOver: false,
    mayBeLive: [releases.v1.artifactId],
  };
  let mounted: MountedImage;
  try {
    mounted = MountedImage.mount(image, fileSystem as FileSystem, at);
  } catch (error) {
    return [{ fault: 'wrong', text: `${name}: not mounted: ${String(error)}` }];
  }
  try {
    const seen = await diskFindings(host, digests, name);
    const state = `${treeState(at)} ${JSON.stringify(told)}`;
    if (recovered.has(state)) return seen;
    recovered.add(state);
    return [...seen, ...(await recoveryFindings(host, releases, digests, told, name))];
  } catch (error) {
    return [{ fault: 'stuck', text: `${name}: ${String(error)}` }];
  } finally {
    mounted.unmount();
    rmSync(image);
  }
}
