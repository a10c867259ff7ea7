/** The two things that the image kit makes: the root image of a version with its bundle, and a disk that boots it. */
import { mkdir, mkdtemp, rename, rm } from 'node:fs/promises';
import { dirname, join, resolve } from 'node:path';
import { type BuildOptions, type BuildResult, buildBundle } from '#/control/cli/bundle/build.ts';
import { makeDisk } from './disk.ts';
import { makeEsp } from './esp.ts';
import { makeDataFilesystem, makeRootFilesystem } from './filesystem.ts';
import { diskLayout, type DiskLayout, type Loader, uuidFrom } from './layout.ts';
import { inRoot, makeRoot, type RootOptions } from './root.ts';
import { runProgram } from './programs.ts';
import { Problem } from '#/protocol/errors.ts';

export interface ImageOptions {
  readonly root: RootOptions;
  /** All but the input: that is the image. */
  readonly bundle: Omit<BuildOptions, 'input' | 'baseDir'>;
  readonly slotBytes: number;
  /** Where the root image is kept; null: nowhere. */
  readonly imageOut: string | null;
}

export interface DiskOptions {
  readonly out: string;
  readonly loader: Loader;
  readonly espBytes: number;
  readonly dataBytes: number;
  /** A join text for the first start, already read. */
  readonly join: string | null;
  readonly onBytes: (doneBytes: number, totalBytes: number) => void;
}

export interface MadeImage {
  readonly bundle: BuildResult;
  readonly imageBytes: number;
}

/** Root, image, bundle; with `disk` also a disk that boots it. Throws as its parts; nothing is left half-made at the targets. */
export async function makeImage(
  options: ImageOptions,
  disk: DiskOptions | null,
): Promise<MadeImage> {
  const { definition, out } = options.bundle;
  if (definition.payloads !== undefined)
    throw new Problem(
      'E_CONFIG',
      'the definition lists payloads: the image kit makes the one payload itself',
    );
  const scratch = await mkdtemp(join(dirname(resolve(disk?.out ?? out)), '.switchback-image-'));
  try {
    const root = join(scratch, 'root');
    await makeRoot(root, options.root);
    const image = join(scratch, 'root.img');
    options.root.onStep('root image');
    const imageBytes = await makeRootFilesystem(
      {
        directory: root,
        out: image,
        label: 'switchback-root',
        uuid: uuidFrom(`${definition.class} ${definition.version} ${definition.release}`),
        sourceDateEpoch: options.root.sourceDateEpoch,
        signal: options.root.signal,
      },
      options.slotBytes,
    );
    options.root.onStep('bundle');
    const bundle = await buildBundle({ ...options.bundle, input: image });
    if (disk !== null) await makeDiskOf({ options, disk, scratch, root, image, bundle });
    if (options.imageOut !== null) await keep(image, options.imageOut);
    return { bundle, imageBytes };
  } finally {
    await rm(scratch, { recursive: true, force: true });
  }
}

interface DiskWork {
  readonly options: ImageOptions;
  readonly disk: DiskOptions;
  readonly scratch: string;
  readonly root: string;
  readonly image: string;
  readonly bundle: BuildResult;
}

async function makeDiskOf(work: DiskWork): Promise<void> {
  const { options, disk, scratch, image, bundle } = work;
  const { sourceDateEpoch, signal, onStep } = options.root;
  const layout = diskLayout({
    loader: disk.loader,
    seed: `${disk.loader} ${bundle.artifactId}`,
    espBytes: disk.espBytes,
    slotBytes: options.slotBytes,
    dataBytes: disk.dataBytes,
  });
  onStep(`disk for ${disk.loader}`);
  const files = await filesOfAgent(work, layout);
  const esp = join(scratch, 'esp.img');
  const common = { layout, scratch, sourceDateEpoch, signal };
  const biosCore = await makeEsp({
    ...common,
    loader: disk.loader,
    files,
    out: esp,
  });
  const data = join(scratch, 'data.img');
  await makeDataFilesystem(
    {
      directory: await dataDirectory(work, files),
      out: data,
      label: 'switchback-data',
      uuid: layout.data.uuid,
      sourceDateEpoch,
      signal,
    },
    layout.data.sizeBytes,
  );
  const total =
    layout.esp.sizeBytes +
    layout.data.sizeBytes +
    bundle.manifest.payloads.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0);
  let done = 0;
  const parts = { esp, env: join(files, 'env.img'), rootA: image, data, biosCore };
  await makeDisk(join(scratch, 'disk'), layout, parts, {
    signal,
    onBytes: (bytes) => disk.onBytes((done += bytes), total),
  });
  await rename(join(scratch, 'disk'), disk.out);
}

/** What lies on a new disk in formats of the agent is made by the agent of the image itself: so they always fit. */
async function filesOfAgent(work: DiskWork, layout: DiskLayout): Promise<string> {
  const { options, disk, root, bundle, scratch } = work;
  const inside = '/run/switchback-new-disk';
  const shared = join(root, inside);
  await mkdir(shared, { recursive: true });
  await runProgram(['cp', '--reflink=auto', bundle.path, join(shared, 'bundle')], {
    signal: options.root.signal,
  });
  await inRoot(root, options.root, [
    '/usr/bin/switchback-agent',
    'new-disk',
    `--loader=${disk.loader}`,
    `--bundle=${inside}/bundle`,
    `--slot-a=${layout.rootA.uuid}`,
    `--slot-b=${layout.rootB.uuid}`,
    `--env-partition=${layout.env.number}`,
    `--root-partitions=${layout.rootA.number},${layout.rootB.number}`,
    `--out=${inside}/out`,
  ]);
  const files = join(scratch, 'files');
  await rename(join(shared, 'out'), files);
  return files;
}

/** What the data partition holds at first: /var of the image, the agent's state, the join text. */
async function dataDirectory(work: DiskWork, files: string): Promise<string> {
  const { root, scratch, disk, options } = work;
  const directory = join(scratch, 'data');
  const { signal } = options.root;
  await runProgram(['cp', '-a', join(root, 'usr/share/factory/var'), directory], { signal });
  const state = join(directory, 'lib/switchback');
  await runProgram(['install', '-d', '-m', '0700', state, join(directory, 'lib/switchback-host')], {
    signal,
  });
  await runProgram(['cp', '-a', `${join(files, 'state')}/.`, state], { signal });
  if (disk.join !== null)
    await runProgram(
      ['install', '-m', '0600', '/dev/stdin', join(directory, 'lib/switchback-host/join')],
      {
        signal,
        input: disk.join,
      },
    );
  const at = `@${options.root.sourceDateEpoch}`;
  await runProgram(['find', directory, '-exec', 'touch', '-h', '-d', at, '{}', '+'], { signal });
  return directory;
}

async function keep(image: string, out: string): Promise<void> {
  await rm(out, { force: true });
  await runProgram(['cp', '--sparse=always', image, out], { signal: new AbortController().signal });
}
