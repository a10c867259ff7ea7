/** The EFI system partition and the boot loaders on it, made with mtools: nothing is mounted. */
import { readdir, readFile, rm, open, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { Problem } from '#/protocol/errors.ts';
import type { DiskLayout, Loader } from './layout.ts';
import { runProgram } from './programs.ts';

export interface EspOptions {
  readonly layout: DiskLayout;
  readonly loader: Loader;
  /** What `switchback-agent new-disk` wrote: `esp/` as on the ESP, `grub-modules`. */
  readonly files: string;
  /** For intermediate files. */
  readonly scratch: string;
  readonly out: string;
  readonly sourceDateEpoch: number;
  readonly signal: AbortSignal;
}

const GRUB_DIRECTORY = '/usr/lib/grub';
const SYSTEMD_BOOT = '/usr/lib/systemd/boot/efi/systemd-bootx64.efi';
/** Drivers of the firmware; what the configuration uses is said by the agent that wrote it. */
const BIOS_MODULES = ['biosdisk', 'serial', 'terminal'] as const;
const EFI_MODULES = ['efi_gop', 'serial', 'terminal'] as const;
/** FAT ids and times are taken from here. */
const FAT_ID_DIGITS = 8;

/** Makes the ESP; resolves with GRUB's core image for BIOS, or null for systemd-boot. Throws E_CONFIG, E_IO. */
export async function makeEsp(options: EspOptions): Promise<Buffer | null> {
  const { layout, loader, scratch, out, signal } = options;
  const env = {
    SOURCE_DATE_EPOCH: String(options.sourceDateEpoch),
    MTOOLS_SKIP_CHECK: '1',
    TZ: 'UTC',
  };
  await rm(out, { force: true });
  const file = await open(out, 'wx');
  await file.truncate(layout.esp.sizeBytes);
  await file.close();
  const id = layout.esp.uuid.replaceAll('-', '').slice(0, FAT_ID_DIGITS);
  await runProgram(['mkfs.vfat', '-F', '32', '--invariant', '-i', id, '-n', 'SWITCHBACK', out], {
    signal,
    env,
  });
  const efi = join(scratch, 'BOOTX64.EFI');
  const put: (readonly [from: string, to: string])[] = [];
  let core: Buffer | null = null;
  if (loader === 'grub') {
    core = await grubCore('i386-pc', join(scratch, 'core.img'), options);
    await grubCore('x86_64-efi', efi, options);
  } else {
    await writeFile(efi, await needed(SYSTEMD_BOOT, 'systemd-boot-efi'));
    put.push([efi, '/EFI/systemd/systemd-bootx64.efi']);
  }
  put.push([efi, '/EFI/BOOT/BOOTX64.EFI']);
  const files = join(options.files, 'esp');
  for (const path of await filesBelow(files)) put.push([join(files, path), `/${path}`]);
  const made = new Set<string>();
  for (const [from, to] of put.toSorted((a, b) => (a[1] < b[1] ? -1 : 1))) {
    for (const parent of parentsOf(to)) {
      if (made.has(parent)) continue;
      made.add(parent);
      await runProgram(['mmd', '-i', out, `::${parent}`], { signal, env });
    }
    await runProgram(['mcopy', '-i', out, from, `::${to}`], { signal, env });
  }
  return core;
}

/** GRUB as one file that goes on with /EFI/switchback/grub.cfg of the disk that it was started from. */
async function grubCore(
  platform: 'i386-pc' | 'x86_64-efi',
  out: string,
  options: EspOptions,
): Promise<Buffer> {
  const used = await readFile(join(options.files, 'grub-modules'), 'utf8');
  const modules = [
    ...used.split('\n').filter((name) => /^[a-z0-9_]+$/.test(name)),
    ...(platform === 'i386-pc' ? BIOS_MODULES : EFI_MODULES),
  ];
  const from = join(GRUB_DIRECTORY, platform);
  await needed(
    join(from, 'moddep.lst'),
    platform === 'i386-pc' ? 'grub-pc-bin' : 'grub-efi-amd64-bin',
  );
  await runProgram(
    [
      'grub-mkimage',
      '-O',
      platform,
      '-d',
      from,
      '-o',
      out,
      '-p',
      `(,gpt${options.layout.esp.number})/EFI/switchback`,
      ...modules,
    ],
    { signal: options.signal },
  );
  return await readFile(out);
}

/** The boot sector's code, of the installed GRUB. */
export async function grubBootSector(): Promise<Buffer> {
  return await needed(join(GRUB_DIRECTORY, 'i386-pc/boot.img'), 'grub-pc-bin');
}

async function needed(path: string, from: string): Promise<Buffer> {
  return await readFile(path).catch((cause: unknown) => {
    throw new Problem(
      'E_CONFIG',
      `${path} is not there; it is in Debian's package ${from}`,
      {},
      { cause },
    );
  });
}

async function filesBelow(directory: string): Promise<readonly string[]> {
  const entries = await readdir(directory, { recursive: true, withFileTypes: true });
  return entries
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name).slice(directory.length + 1))
    .toSorted();
}

function parentsOf(path: string): readonly string[] {
  const parts = path.split('/').slice(1, -1);
  return parts.map((_, index) => `/${parts.slice(0, index + 1).join('/')}`);
}
