/**
 * What lies on a new disk in formats of this agent: the loader's first record, its configuration, and the state that says which
 * version is in slot `a`. Run by the image kit inside the root that it has made, so that disk and agent always fit.
 */
import { copyFile, mkdir, open, readFile, rm, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import type { BackendKind } from '#/agent/adapters/boot/backend.ts';
import { makeEnvBlock } from '#/agent/adapters/boot/env-block.ts';
import { grubConfig, grubModules, TRIES_PATH } from '#/agent/adapters/boot/grub-config.ts';
import { checkedArguments } from '#/agent/adapters/boot/kernel-arguments.ts';
import { initialOrder } from '#/agent/adapters/boot/order.ts';
import { nodeFiles } from '#/agent/adapters/file-port.ts';
import { slotRecords } from '#/agent/adapters/slot-records.ts';
import { unpackIndex } from '#/bundle/chunk-index.ts';
import { LEADING_BYTES, locateMembers } from '#/bundle/container.ts';
import { artifactIdOf, type Manifest, parseManifest } from '#/bundle/manifest.ts';
import { Problem } from '#/protocol/errors.ts';

export interface NewDisk {
  readonly loader: Extract<BackendKind, 'grub' | 'systemd-boot'>;
  /** The bundle of the version in slot `a`: made by whoever makes the disk, so its signatures are not looked at. */
  readonly bundle: string;
  readonly partUuid: { readonly a: string; readonly b: string };
  /** Numbers in the GPT. */
  readonly numbers: { readonly env: number; readonly rootA: number; readonly rootB: number };
  /** Where kernel and initrd of the version are found; `/` in the root of the image. */
  readonly root: string;
  readonly serial: boolean;
  /** Gets `esp/`, `state/`, `env.img` and, for GRUB, `grub-modules`; made anew. */
  readonly out: string;
}

const ENV_PARTITION_BYTES = 1024 * 1024;
const LEADING_READS_MAX = 5;

/** Writes all files. Resolves with the manifest of the version. Throws E_SCHEMA, E_IO, E_BOOT. */
export async function writeNewDisk(disk: NewDisk): Promise<Manifest> {
  const { manifest, manifestBytes, rawIndex } = await readBundle(disk.bundle);
  const kernelArguments = checkedArguments(
    await readFile(join(disk.root, 'etc/kernel/cmdline'), 'utf8'),
  );
  await rm(disk.out, { recursive: true, force: true });
  const put = async (path: string, content: string | Uint8Array): Promise<void> => {
    const full = join(disk.out, path);
    await mkdir(dirname(full), { recursive: true });
    await writeFile(full, content);
  };
  await put('esp/EFI/switchback/layout', `switchback-layout/1\nbackend=${disk.loader}\n`);
  const env = Buffer.alloc(ENV_PARTITION_BYTES);
  if (disk.loader === 'grub') {
    env.set(initialOrder('a', kernelArguments));
    const { numbers, partUuid, serial } = disk;
    const config = grubConfig({
      numbers,
      partUuid,
      console: serial ? 'serial' : 'screen',
      lostArguments: kernelArguments,
    });
    await put('esp/EFI/switchback/grub.cfg', config);
    await put('grub-modules', `${grubModules.join('\n')}\n`);
    await put(`esp${TRIES_PATH}`, makeEnvBlock([]));
  } else await putEntries(disk, manifest, artifactIdOf(manifestBytes), kernelArguments, put);
  await put('env.img', env);
  await put('state/slots/a.meta/manifest.json', manifestBytes);
  await put('state/slots/a.meta/chunks.index', rawIndex);
  await slotRecords(nodeFiles(), join(disk.out, 'state')).write({
    slot: 'a',
    status: 'good',
    artifactId: artifactIdOf(manifestBytes),
    version: manifest.version,
    release: manifest.release,
    reason: null,
  });
  return manifest;
}

/** Section 3 of docs/specs/partitions.md. */
async function putEntries(
  disk: NewDisk,
  manifest: Manifest,
  artifact: string,
  kernelArguments: string,
  put: (path: string, content: string) => Promise<void>,
): Promise<void> {
  const digits = artifact.slice(0, 12);
  const files = `switchback/a-${digits}`;
  await put('esp/loader/loader.conf', 'timeout 0\neditor no\n');
  await put(
    `esp/loader/entries/switchback-a-${digits}-1.conf`,
    [
      `title switchback a ${manifest.version}`,
      'sort-key switchback',
      'version 1',
      `options root=PARTUUID=${disk.partUuid.a} ro ${kernelArguments}`,
      `initrd /${files}/initrd`,
      `linux /${files}/linux`,
      '',
    ].join('\n'),
  );
  await put(`esp/${files}/args`, `${kernelArguments}\n${manifest.version}\n`);
  await copyFile(join(disk.root, 'boot/vmlinuz'), join(disk.out, 'esp', files, 'linux'));
  await copyFile(join(disk.root, 'boot/initrd.img'), join(disk.out, 'esp', files, 'initrd'));
}

async function readBundle(
  path: string,
): Promise<{ manifest: Manifest; manifestBytes: Uint8Array; rawIndex: Uint8Array }> {
  await using file = await open(path, 'r');
  const read = async (offset: number, sizeBytes: number): Promise<Uint8Array> => {
    const { bytesRead, buffer } = await file.read(new Uint8Array(sizeBytes), 0, sizeBytes, offset);
    return buffer.subarray(0, bytesRead);
  };
  let wantBytes = LEADING_BYTES;
  for (let reads = 0; reads < LEADING_READS_MAX; reads += 1) {
    const leading = await read(0, wantBytes);
    const located = locateMembers(leading);
    if ('needBytes' in located) {
      if (leading.length < wantBytes) break;
      wantBytes = located.needBytes;
      continue;
    }
    const { offset, sizeBytes } = located.manifest;
    const manifestBytes = leading.subarray(offset, offset + sizeBytes);
    const manifest = parseManifest(manifestBytes);
    const stored = await read(located.index.offset, located.index.sizeBytes);
    return { manifest, manifestBytes, rawIndex: unpackIndex(stored, manifest) };
  }
  throw new Problem('E_SCHEMA', `${path} is no whole bundle`, { path });
}
