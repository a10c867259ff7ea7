/** What is measured: ours and the peers on the same work. Each case is prepared (not timed), run (timed), checked. */
import { execFile } from 'node:child_process';
import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { mkdir, readdir, readlink, rename, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { pipeline } from 'node:stream/promises';
import { promisify } from 'node:util';
import {
  DESYNC,
  makeCasync,
  makeDesync,
  makeOstree,
  makeRdiff,
  makeSwupdate,
  makeXdelta,
  type Version,
} from './artifacts.ts';

const run = promisify(execFile);

export interface Step {
  readonly name: string;
  /** For `bash -eo pipefail`. The step of ours prints JSON with `stepMs`, which then is the time. */
  readonly script: string;
}

export interface Case {
  readonly group: 'full' | 'delta' | 'light' | 'tree' | 'tree-delta';
  readonly name: string;
  /** The case whose time is 1.00 in its group. */
  readonly isReference?: boolean;
  /** Programs of Debian that must be there; otherwise the case is named as skipped. */
  readonly needs: readonly string[];
  /** Once, untimed. */
  readonly make?: () => Promise<void>;
  readonly prepare: () => Promise<void>;
  readonly steps: readonly Step[];
  /** The file of v1 that it starts from: damaged once, to see what happens (bad-seed.ts). */
  readonly seed?: () => Promise<string>;
  /** Where the result is: an image or a directory, compared with what `expectedOf` names. */
  readonly result: () => Promise<string>;
}

/** What comes out: in the group `light` its image, else v2. */
export function expectedOf({ group }: Case): string {
  if (group === 'light') return 'light.img';
  return group === 'tree' || group === 'tree-delta' ? 'v2' : 'v2.img';
}

export interface Place {
  readonly data: string;
  /** Where results go; emptied. */
  readonly work: string;
  readonly url: string;
  /** The driver of run-install.ts, beside the shipped child. */
  readonly driver: string;
  /** The same whose workers know only documented calls of Node. */
  readonly documentedDriver: string;
}

/** sha256 of a file, hex. */
export async function sha256Of(path: string): Promise<string> {
  const hash = createHash('sha256');
  await pipeline(createReadStream(path, { highWaterMark: 1024 * 1024 }), hash);
  return hash.digest('hex');
}

/**
 * Moves a tree out of the way, into `aside` of the work that is removed at the end. Not removed here: ext4 without a journal
 * goes past every inode that was freed in the last minutes each time that it makes one (decision 96), so whoever comes next
 * would pay for the trees of the one before. Nothing there is fine.
 */
async function setAside({ work }: Place, path: string): Promise<void> {
  const aside = join(work, 'aside');
  await mkdir(aside, { recursive: true });
  const name = String((await readdir(aside)).length);
  await rename(path, join(aside, name)).catch((error: NodeJS.ErrnoException) => {
    if (error.code !== 'ENOENT') throw error;
  });
}

/** All entries with kinds, modes, owners, links and content, as one digest: two trees are equal when theirs are. */
export async function treeDigestOf(path: string): Promise<string> {
  const script = `cd "$1"; { find . -mindepth 1 -printf '%P %y %m %U:%G %l\\n' | sort; find . -type f -print0 | sort -z | xargs -0 sha256sum; } | sha256sum`;
  const { stdout } = await run('bash', ['-c', script, 'digest', path], {
    env: { LC_ALL: 'C', PATH: process.env['PATH'] ?? '' },
  });
  return stdout.slice(0, 64);
}

/** Names of our bundles. */
interface Bundles {
  readonly to: string;
  /** What is live; null: nothing. */
  readonly from: string | null;
}

/** Our host: its live version is the one that the case starts from. */
class OurHost {
  readonly #place: Place;
  readonly #root: string;
  readonly #to: string;
  readonly #from: string | null;
  readonly #flags: string;

  constructor(place: Place, id: string, bundles: Bundles, flags: string) {
    this.#place = place;
    this.#root = join(place.work, `host-${id}`);
    this.#to = bundles.to;
    this.#from = bundles.from;
    this.#flags = flags;
  }

  script(step: string, bundle = this.#to): string {
    const { driver, data, url } = this.#place;
    return `${process.execPath} ${driver} ${step} ${this.#root} ${join(data, bundle)} ${url}/${bundle} ${this.#flags}`;
  }

  /** The version that is live stays, everything else goes. */
  async prepare(): Promise<void> {
    await mkdir(this.#root, { recursive: true });
    const live = await this.#live();
    if (this.#from !== null && live === null) {
      for (const step of ['download', 'verify', 'switch'])
        await run('bash', ['-c', this.script(step, this.#from)]);
      return;
    }
    const releases = join(this.#root, 'releases');
    for (const name of await readdir(releases).catch(() => [])) {
      if (live !== null && name.endsWith(live)) continue;
      if (this.#to.includes('-tree-')) await setAside(this.#place, join(releases, name));
      else await rm(join(releases, name), { recursive: true });
    }
    const records = join(this.#root, 'state/slots');
    for (const name of await readdir(records).catch(() => [])) {
      if (live === null || !name.startsWith(live)) await rm(join(records, name));
    }
  }

  /** The image of the live version. */
  async seed(): Promise<string> {
    return join(this.#root, 'releases', (await this.#live()) ?? 'missing', 'root.img');
  }

  async result(): Promise<string> {
    const live = await this.#live();
    const names = await readdir(join(this.#root, 'releases'));
    const [slot] = names.filter((name) => /^[0-9a-f]{64}$/.test(name) && name !== live);
    return join(this.#root, 'releases', slot ?? 'missing');
  }

  async #live(): Promise<string | null> {
    const link = await readlink(join(this.#root, 'current')).catch(() => null);
    return link?.slice(-64) ?? null;
  }
}

function ours(
  place: Place,
  group: Case['group'],
  name: string,
  bundles: Bundles,
  flags = '--no-patches',
): Case {
  const id = `${group}-${name}`.replaceAll(/[^a-z0-9]+/g, '-');
  const host = new OurHost(place, id, bundles, flags);
  const isImage = bundles.to.includes('-image-');
  return {
    group,
    name,
    needs: [],
    prepare: () => host.prepare(),
    steps: [
      { name: `${name}: each chunk verified, synced`, script: host.script('download') },
      { name: `${name}: read back past the page cache`, script: host.script('verify') },
    ],
    ...(group === 'delta' ? { seed: () => host.seed() } : {}),
    result: async () => (isImage ? join(await host.result(), 'root.img') : await host.result()),
  };
}

function one(
  group: Case['group'],
  name: string,
  rest: Pick<Case, 'needs' | 'prepare' | 'result'> &
    Pick<Case, 'make' | 'isReference' | 'seed'> & { readonly script: string },
): Case {
  const { script, ...others } = rest;
  return { group, name, ...others, steps: [{ name, script }] };
}

function imageCases(place: Place): Case[] {
  const { data, work, url } = place;
  const out = join(work, 'peer.img');
  const dd = `dd of=${out} bs=1M conv=fsync status=none`;
  const result = (): Promise<string> => Promise.resolve(out);
  const seed = (): Promise<string> => Promise.resolve(join(data, 'v1.img'));
  const prepare = (): Promise<void> => rm(out, { force: true });
  const full = `curl -sf ${url}/v2.img.zst`;
  // SWUpdate writes to what is there: a slot of the right size.
  const slot = async (): Promise<void> => {
    await prepare();
    await run('truncate', ['-s', '1400M', out]);
  };
  const swupdate = `swupdate -H bench:1.0 -k ${data}/swu/ca.pem -l 1 -d`;
  const makeSwu = async (): Promise<void> => {
    await makeSwupdate(data, out);
    await writeFile('/etc/hwrevision', 'bench 1.0\n', { flag: 'wx' }).catch(() => undefined);
  };
  const documented = { ...place, driver: place.documentedDriver };
  const only = 'documented calls of Node only';
  const acdc = { to: 'v2-image-acdc-32k.bundle', from: 'v1-image-acdc-32k.bundle' };
  const fastcdc = { to: 'v2-image-fastcdc-16k.bundle', from: 'v1-image-fastcdc-16k.bundle' };
  const desync = `${data}/${DESYNC} extract -n 10 -s ${url}/casync/blob.castr`;
  const desyncMake = async (): Promise<void> => {
    await makeCasync(data, 'v2');
    await makeDesync(data);
  };
  const casync = (group: Case['group'], version: Version): Case =>
    one(group, 'casync, chunks of 32 KiB on average', {
      isReference: true,
      needs: ['casync'],
      make: () => makeCasync(data, version),
      prepare,
      ...(group === 'delta' ? { seed } : {}),
      result,
      script: `casync extract --seed-output=no --seed=${data}/v1.img --store=${url}/casync/blob.castr ${url}/casync/${version}.caibx ${out} >/dev/null; sync ${out}`,
    });
  return [
    one('full', 'curl, zstd -d, dd conv=fsync (nothing verified)', {
      isReference: true,
      needs: ['curl', 'zstd'],
      prepare,
      result,
      script: `${full} | zstd -qdc | ${dd}`,
    }),
    ours(place, 'full', 'switchback', { to: fastcdc.to, from: null }),
    ours(place, 'full', 'switchback, acdc-32k', { to: acdc.to, from: null }),
    ours(documented, 'full', `switchback, acdc-32k, ${only}`, { to: acdc.to, from: null }),
    one('full', 'the same pipeline with tee and sha256sum', {
      needs: ['curl', 'zstd'],
      prepare,
      result,
      script: `${full} | zstd -qdc | tee >(sha256sum >/dev/null) | ${dd}`,
    }),
    one('full', 'swupdate, raw zstd, signed', {
      needs: ['swupdate', 'cpio', 'rdiff', 'openssl'],
      make: makeSwu,
      prepare: slot,
      result,
      script: `${swupdate} "-u ${url}/swu/full.swu" >/dev/null 2>&1; sync ${out}`,
    }),
    one('full', 'desync, chunks of 32 KiB on average, ten at a time', {
      needs: ['casync', 'mmdebstrap'],
      make: desyncMake,
      prepare,
      result,
      script: `${desync} ${url}/casync/v2.caibx ${out} >/dev/null; sync ${out}`,
    }),
    ours(place, 'delta', 'switchback, patch', acdc, ''),
    ours(documented, 'delta', `switchback, patch, ${only}`, acdc, ''),
    ours(place, 'delta', 'switchback, chunks fastcdc-16k', fastcdc),
    ours(place, 'delta', 'switchback, chunks acdc-32k', acdc),
    casync('delta', 'v2'),
    one('delta', 'desync, the same chunks, ten at a time', {
      needs: ['casync', 'mmdebstrap'],
      make: desyncMake,
      prepare,
      result,
      script: `${desync} --seed ${data}/seed/v1.caibx ${url}/casync/v2.caibx ${out} >/dev/null; sync ${out}`,
    }),
    one('delta', 'swupdate, rdiff', {
      needs: ['swupdate', 'cpio', 'rdiff', 'openssl'],
      make: makeSwu,
      prepare: slot,
      seed,
      result,
      script: `${swupdate} "-u ${url}/swu/rdiff.swu" >/dev/null 2>&1; sync ${out}`,
    }),
    one('delta', 'curl, zstd -d, rdiff patch', {
      needs: ['rdiff', 'curl', 'zstd'],
      make: () => makeRdiff(data),
      prepare,
      seed,
      result,
      script: `curl -sf ${url}/v1-v2.rdiff.zst | zstd -qdc | rdiff patch ${data}/v1.img - - | ${dd}`,
    }),
    one('delta', 'curl, xdelta3', {
      needs: ['xdelta3', 'curl'],
      make: () => makeXdelta(data),
      prepare,
      seed,
      result,
      script: `curl -sf ${url}/v1-v2.xdelta | xdelta3 -d -q -c -B 1468006400 -s ${data}/v1.img | ${dd}`,
    }),
    ours(place, 'light', 'switchback, patch', { ...acdc, to: 'light-image-acdc-32k.bundle' }, ''),
    ours(place, 'light', 'switchback, chunks fastcdc-16k', {
      ...fastcdc,
      to: 'light-image-fastcdc-16k.bundle',
    }),
    ours(place, 'light', 'switchback, chunks acdc-32k', {
      ...acdc,
      to: 'light-image-acdc-32k.bundle',
    }),
    casync('light', 'light'),
  ];
}

function treeCases(place: Place): Case[] {
  const { data, work, url } = place;
  const out = join(work, 'peer-tree');
  const repo = join(work, 'ostree');
  const base = join(work, 'ostree-v1');
  const result = (): Promise<string> => Promise.resolve(out);
  const prepare = async (): Promise<void> => {
    await setAside(place, out);
    await setAside(place, repo);
  };
  const ostree = `ostree --repo=${repo}`;
  const init = `mkdir ${repo}; ${ostree} init --mode=bare; ${ostree} remote add --no-gpg-verify origin ${url}/ostree`;
  const pull = `${ostree} pull origin:v2 >/dev/null; ${ostree} checkout -H origin:v2 ${out}; sync -f ${work}`;
  const withV1 = async (): Promise<void> => {
    await prepare();
    await run('bash', [
      '-ec',
      `[ -e ${base} ] || { ${init}; ${ostree} pull origin:v1 >/dev/null; mv ${repo} ${base}; }; cp -al ${base} ${repo}`,
    ]);
  };
  const tar = `mkdir ${out}; curl -sf ${url}/v2.tar.zst | zstd -qdc | tar -x --numeric-owner -C ${out} -f -; sync -f ${work}`;
  const bundles = { to: 'v2-tree-fastcdc-16k.bundle', from: 'v1-tree-fastcdc-16k.bundle' };
  const makeRepo = (): Promise<void> => makeOstree(data);
  const shell = { needs: ['curl', 'zstd', 'tar'], prepare, result, script: tar };
  return [
    one('tree', 'curl, zstd -d, tar x, syncfs (nothing verified)', { ...shell, isReference: true }),
    ours(place, 'tree', 'switchback', { to: bundles.to, from: null }),
    one('tree', 'ostree pull and checkout', {
      needs: ['ostree'],
      make: makeRepo,
      prepare: async () => {
        await prepare();
        await run('bash', ['-ec', init]);
      },
      result,
      script: pull,
    }),
    one('tree-delta', 'ostree pull and checkout (hard links)', {
      isReference: true,
      needs: ['ostree'],
      make: makeRepo,
      prepare: withV1,
      result,
      script: pull,
    }),
    ours(place, 'tree-delta', 'switchback, patch', bundles, ''),
    ours(place, 'tree-delta', 'switchback, chunks', bundles),
    one('tree-delta', 'curl, zstd -d, tar x, syncfs (nothing reused)', shell),
  ];
}

/** A full install of the image at a priority: what runs beside a loaded service. */
export function fullInstall(place: Place, priority: 'idle' | 'low' | 'normal'): Case {
  const bundles = { to: 'v2-image-acdc-32k.bundle', from: null };
  return ours(place, 'full', `switchback ${priority}`, bundles, `--priority ${priority}`);
}

export function allCases(place: Place): Case[] {
  return [...imageCases(place), ...treeCases(place)];
}
