/** What a server would publish for the two versions of make-data.sh: our bundles and what each peer needs. Kept once made. */
import { execFile } from 'node:child_process';
import { existsSync } from 'node:fs';
import { mkdir, rename } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { signerOf } from '#/bundle/keys.ts';
import type { ChunkerName } from '#/bundle/chunk-index.ts';
import { buildBundle } from '#/control/cli/bundle/build.ts';
import { buildPatch } from '#/control/cli/bundle/patch-build.ts';
import { openBundle } from '#/control/cli/bundle/read.ts';
import { patchPathOf } from '#/bundle/patch.ts';
import { checkDefinition } from '#/control/cli/bundle/definition.ts';

const run = promisify(execFile);

/** Everybody's zstd level. Ours has 15 by default: smaller, and the same to unpack. */
export const LEVEL = 9;
const EPOCH_S = 1_767_225_600;

/** Runs a shell script in `data` that makes `path` there, unless it is there. */
async function make(data: string, path: string, script: string): Promise<void> {
  if (existsSync(join(data, path))) return;
  process.stderr.write(`making ${path}\n`);
  await run('bash', ['-c', `set -eo pipefail; cd "$1"; ${script}`, 'make', data], {
    maxBuffer: 64 * 1024 * 1024,
  });
  if (!existsSync(join(data, path))) throw new Error(`${path} was not made`);
}

/** The versions of make-data.sh: a week apart, and `light`, v1 with little changed. */
export type Version = 'v1' | 'v2' | 'light';

async function bundle(
  data: string,
  version: Version,
  kind: 'image' | 'tree',
  chunker: ChunkerName,
): Promise<void> {
  const out = join(data, `${version}-${kind}-${chunker}.bundle`);
  if (existsSync(out)) return;
  process.stderr.write(`making ${out}\n`);
  const path = join(data, kind === 'image' ? `${version}.img` : version);
  const grants = { allowSetuid: true, allowCaseCollisions: true, allowAbsoluteLinks: true };
  await buildBundle({
    definition: checkDefinition({
      name: 'root',
      class: 'bench',
      version: version === 'v1' ? '1' : '2',
      release: version === 'v1' ? 1 : 2,
      compressionLevel: LEVEL,
      payloads: [
        {
          name: 'root',
          kind,
          path,
          chunker,
          ...(kind === 'tree' ? { ...grants, keepOwners: true } : {}),
        },
      ],
    }),
    baseDir: data,
    out: `${out}.new`,
    sourceDateEpoch: EPOCH_S,
    signers: [signerOf(new Uint8Array(32).fill(1))],
  });
  await rename(`${out}.new`, out);
}

/** Our bundles: images with both chunkers, trees. */
export async function makeBundles(data: string): Promise<void> {
  for (const version of ['v1', 'v2', 'light'] as const) {
    await bundle(data, version, 'image', 'acdc-32k');
    await bundle(data, version, 'image', 'fastcdc-16k');
    if (version !== 'light') await bundle(data, version, 'tree', 'fastcdc-16k');
  }
}

/** The patches from v1, where hosts look for them: beside the bundle of the newer version. */
export async function makePatches(data: string): Promise<void> {
  for (const name of ['v2-image-acdc-32k', 'v2-tree-fastcdc-16k', 'light-image-acdc-32k']) {
    const from = join(data, `${name.replace(/^[^-]+/, 'v1')}.bundle`);
    const to = join(data, `${name}.bundle`);
    await using old = await openBundle(from, null);
    const out = patchPathOf(to, old.artifactId);
    if (existsSync(out)) continue;
    process.stderr.write(`making ${out}\n`);
    await buildPatch({ from, to, out });
  }
}

export const CASYNC_CHUNK_BYTES = 32 * 1024;

/** The chunks of a version, for casync and desync. */
export async function makeCasync(data: string, version: Version): Promise<void> {
  const size = `--chunk-size=${CASYNC_CHUNK_BYTES}`;
  await make(
    data,
    `casync/${version}.caibx`,
    `mkdir -p casync; casync make ${size} --store=casync/blob.castr casync/new.caibx ${version}.img >/dev/null; mv casync/new.caibx casync/${version}.caibx`,
  );
}

/** Where desync lies once made, in the directory of the data. */
export const DESYNC = 'desync/usr/bin/desync';

/**
 * desync, of which Debian has a package in sid only: taken out of it, with the mirror of this machine. A mirror may be older
 * than its lists are valid for. What its seed is known by lies beside a name of the seed.
 */
export async function makeDesync(data: string): Promise<void> {
  const sources = '/etc/apt/sources.list.d/*.sources';
  await make(
    data,
    DESYNC,
    `mirror=$(cat ${sources} | sed -n 's/^URIs: *//p' | grep -m1 -E '/debian/?$')
rm -rf desync; mmdebstrap --quiet --variant=extract --include=desync --aptopt='Apt::Install-Recommends "false"' --aptopt='Acquire::Check-Valid-Until "false"' sid desync "deb $mirror sid main"`,
  );
  const kib = CASYNC_CHUNK_BYTES / 1024;
  await make(
    data,
    'seed/v1.caibx',
    `mkdir -p seed; ln -sf ../v1.img seed/v1; ./${DESYNC} make -m ${kib / 4}:${kib}:${kib * 4} seed/new.caibx v1.img >/dev/null; mv seed/new.caibx seed/v1.caibx`,
  );
}

/** Peers that read v2 as a difference from v1: made from the two images, on the server. */
export async function makeXdelta(data: string): Promise<void> {
  await make(
    data,
    'v1-v2.xdelta',
    'xdelta3 -e -q -9 -S none -B 1468006400 -s v1.img v2.img new.xdelta; mv new.xdelta v1-v2.xdelta',
  );
}
export async function makeRdiff(data: string): Promise<void> {
  await make(
    data,
    'v1-v2.rdiff.zst',
    `rdiff signature v1.img v1.sig; rdiff delta v1.sig v2.img new.rdiff; zstd -q -f -${LEVEL} -T0 --rm new.rdiff -o new.zst; mv new.zst v1-v2.rdiff.zst`,
  );
}

/** An ostree repository with both versions, without static deltas, and one with the delta from v1 to v2. */
export async function makeOstree(data: string): Promise<void> {
  const commit = (version: string): string =>
    `ostree --repo=new commit -b ${version} --tree=dir=${version} -s ${version} --timestamp='2026-01-01 00:00:00 +0000' >/dev/null`;
  await make(
    data,
    'ostree',
    `rm -rf new; mkdir new; ostree --repo=new init --mode=archive; ${commit('v1')}; ${commit('v2')}; ostree --repo=new summary -u; mv new ostree`,
  );
}

/** SWUpdate refuses what is not signed: a key of its own for the bench. */
export async function makeSwupdate(data: string, target: string): Promise<void> {
  await mkdir(join(data, 'swu'), { recursive: true });
  await make(
    data,
    'swu/ca.pem',
    `cd swu
openssl req -x509 -newkey rsa:2048 -nodes -keyout ca.key -out new.pem -days 3650 -subj /CN=bench-ca -addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign,cRLSign 2>/dev/null
openssl req -newkey rsa:2048 -nodes -keyout dev.key -out dev.csr -subj /CN=bench-signer 2>/dev/null
printf 'basicConstraints=CA:FALSE\\nkeyUsage=digitalSignature\\nextendedKeyUsage=emailProtection,codeSigning\\nsubjectKeyIdentifier=hash\\nauthorityKeyIdentifier=keyid\\n' >ext
openssl x509 -req -in dev.csr -CA new.pem -CAkey ca.key -CAcreateserial -days 3650 -extfile ext -out dev.pem 2>/dev/null
mv new.pem ca.pem`,
  );
  const archive = (name: string, payload: string, type: string, extra: string): Promise<void> =>
    make(
      data,
      `swu/${name}.swu`,
      `mkdir -p swu/${name}; ln -f ${payload} swu/${name}/payload; cd swu/${name}
sum=$(sha256sum payload | cut -d' ' -f1)
cat >sw-description <<END
software = { version = "2.0.0"; hardware-compatibility = [ "1.0" ];
  images: ( { filename = "payload"; device = "${target}"; type = "${type}"; compressed = "zstd"; sha256 = "$sum"; installed-directly = true; ${extra} } ); }
END
openssl cms -sign -in sw-description -out sw-description.sig -signer ../dev.pem -inkey ../dev.key -outform DER -nosmimecap -binary
printf 'sw-description\\nsw-description.sig\\npayload\\n' | cpio -oL -H crc --quiet >../new.swu; mv ../new.swu ../${name}.swu`,
    );
  await archive('full', 'v2.img.zst', 'raw', '');
  await makeRdiff(data);
  await archive(
    'rdiff',
    'v1-v2.rdiff.zst',
    'rdiff_image',
    `properties: { rdiffbase = "${join(data, 'v1.img')}"; };`,
  );
}
