/**
 * A small disk as the image kit lays it out, booted by the real GRUB: grub-emu of Debian's GRUB 2.06 runs the generated grub.cfg
 * with its own drivers on the image. Only `linux` and `initrd` are replaced: they write down what would be started. About 20
 * boots a second.
 */
import { execFileSync, spawnSync } from 'node:child_process';
import {
  closeSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readFileSync,
  readSync,
  rmSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { PartitionSlot } from '#/agent/adapters/boot/backend.ts';
import { ENV_BLOCK_BYTES, makeEnvBlock, parseEnvBlock } from '#/agent/adapters/boot/env-block.ts';
import { type GrubLayout, grubConfig } from '#/agent/adapters/boot/grub-config.ts';
import { ORDER_REGION_BYTES } from '#/agent/adapters/boot/order.ts';

const SECTOR = 512;
const MODULES = '/usr/lib/grub/x86_64-emu';
/** First sector and number of sectors by partition number. */
const parts = { 2: [2048, 8192], 4: [10240, 4096], 5: [14336, 4096], 3: [18432, 2048] } as const;
const env = parts[3][0] * SECTOR;
/** Bytes of the partition `switchback-env`: so many ORDERs can lie in it one behind the other for `views`. */
const ENV_BYTES = parts[3][1] * SECTOR;
export const VIEWS_MAX = ENV_BYTES / ORDER_REGION_BYTES;
export const partUuids = {
  a: '11111111-1111-4111-8111-111111111111',
  b: '22222222-2222-4222-8222-222222222222',
} as const;
const RESULT_MARK = 'the result of a boot';
const TRIES_MARK = 'the tries of GRUB';
const BOOT_TIMEOUT_MS = 60_000;

export interface GrubBoot {
  /** Null: no slot was started. */
  readonly slot: PartitionSlot | null;
  /** What `linux` was called with, after the path of the kernel. */
  readonly arguments: string;
}

export interface GrubDisk extends Disposable {
  readonly image: string;
  /** Both copies of ORDER. */
  readOrder(): Uint8Array;
  writeOrder(region: Uint8Array, position?: number): void;
  /** The 1,024 bytes of GRUB's own file. */
  readTries(): Uint8Array;
  writeTries(bytes: Uint8Array): void;
  /** A slot whose kernel is not there, or is there again. */
  setKernel(slot: PartitionSlot, isThere: boolean): void;
  /** Boots once; what GRUB writes stays on the disk. */
  boot(): GrubBoot;
  /** What GRUB itself reads from each of these regions, at most VIEWS_MAX, in one run: nothing is booted. ORDER is overwritten. */
  views(regions: readonly Uint8Array[]): readonly GrubView[];
}

/** `A` and `B`: on trial, with the other one as default; `-`: no valid ORDER. */
export type GrubView = 'a' | 'b' | 'A' | 'B' | '-';

/** Whether this machine can make and boot such disks (packaging/install-test-tools.sh). */
export function hasGrub(): boolean {
  const tools = ['grub-emu', 'sgdisk', 'mkfs.vfat', 'mcopy', 'mkfs.ext4'];
  return tools.every((tool) => spawnSync('sh', ['-c', `command -v ${tool}`]).status === 0);
}

/** Makes the disk: no ORDER yet, an empty file of tries, both slots with a kernel. */
export function grubDisk(layout: Partial<GrubLayout> = {}): GrubDisk {
  const directory = mkdtempSync(join(tmpdir(), 'switchback-grub-'));
  const at = (name: string): string => join(directory, name);
  const run = (program: string, ...argv: readonly string[]): void =>
    void execFileSync(program, argv, { stdio: 'pipe' });
  const image = at('disk.img');
  writeFileSync(image, '');
  truncateSync(image, 16 * 1024 * 1024);
  run('sgdisk', '-a', '1', ...tableArguments(), image);
  const esp = at('esp.img');
  writeFileSync(esp, '');
  truncateSync(esp, parts[2][1] * SECTOR);
  // Clusters of 2 KiB: the small files that are looked at from outside lie in one piece.
  run('mkfs.vfat', '-s', '4', esp);
  run('mmd', '-i', esp, '::/EFI', '::/EFI/switchback');
  writeFileSync(at('tries.env'), makeEnvBlock([['mark', TRIES_MARK]]));
  writeFileSync(at('result.env'), makeEnvBlock([['mark', RESULT_MARK]]));
  run('mcopy', '-i', esp, at('tries.env'), '::/EFI/switchback/tries.env');
  run('mcopy', '-i', esp, at('result.env'), '::/result.env');
  const roots = { full: rootImage(at, run, true), empty: rootImage(at, run, false) };

  const disk = openSync(image, 'r+');
  const put = (bytes: Uint8Array, position: number): void =>
    void writeSync(disk, bytes, 0, bytes.byteLength, position);
  const get = (position: number, sizeBytes: number): Uint8Array => {
    const bytes = Buffer.alloc(sizeBytes);
    readSync(disk, bytes, 0, sizeBytes, position);
    return bytes;
  };
  put(readFileSync(esp), parts[2][0] * SECTOR);
  const found = (mark: string): number => {
    const start = parts[2][0] * SECTOR;
    const inside = Buffer.from(get(start, parts[2][1] * SECTOR)).indexOf(`mark=${mark}`);
    return start + inside - '# GRUB Environment Block\n'.length;
  };
  const tries = found(TRIES_MARK);
  const result = found(RESULT_MARK);
  put(makeEnvBlock([]), tries);
  for (const number of [4, 5] as const) put(roots.full, parts[number][0] * SECTOR);

  mkdirSync(at('grub'));
  symlinkSync(MODULES, at('grub/x86_64-emu'));
  const config = grubConfig({
    numbers: { env: 3, rootA: 4, rootB: 5 },
    partUuid: partUuids,
    lostArguments: 'lost=1',
    ...layout,
  });
  const booting = at('grub/grub.cfg');
  writeFileSync(booting, PRELUDE + config);
  writeFileSync(at('devices'), `(hd0) ${image}\n`);

  const emulate = (name: string): { started: string | undefined; shown: string } => {
    put(makeEnvBlock([]), result);
    const ended = spawnSync('grub-emu', ['-d', at(name), '-m', at('devices')], {
      stdio: ['ignore', 'pipe', 'pipe'],
      timeout: BOOT_TIMEOUT_MS,
      encoding: 'latin1',
      env: { TERM: 'dumb', PATH: process.env['PATH'] },
    });
    const started = parseEnvBlock(get(result, ENV_BLOCK_BYTES))?.get('sb_result');
    return { started, shown: (ended.stdout + ended.stderr).slice(-2000) };
  };
  return {
    image,
    readOrder: () => get(env, ORDER_REGION_BYTES),
    writeOrder: (region, position = 0) => put(region, env + position),
    readTries: () => get(tries, ENV_BLOCK_BYTES),
    writeTries: (bytes) => put(bytes, tries),
    setKernel: (slot, isThere) =>
      put(isThere ? roots.full : roots.empty, parts[slot === 'a' ? 4 : 5][0] * SECTOR),
    boot() {
      const { started, shown } = emulate('grub');
      if (started === undefined) {
        if (/no slot can be booted/.test(shown)) return { slot: null, arguments: '' };
        throw new Error(`GRUB started nothing: ${shown}`);
      }
      const [root, , ...rest] = started.split(' ');
      const slot = root === 'hd0,gpt4' ? 'a' : root === 'hd0,gpt5' ? 'b' : null;
      return { slot, arguments: rest.join(' ') };
    },
    views(regions) {
      for (const [index, region] of regions.entries())
        put(region, env + index * ORDER_REGION_BYTES);
      mkdirSync(at('views'), { recursive: true });
      rmSync(at('views/x86_64-emu'), { force: true });
      symlinkSync(MODULES, at('views/x86_64-emu'));
      const functions = config.slice(0, config.indexOf(DECIDES));
      writeFileSync(at('views/grub.cfg'), PRELUDE + functions + viewScript(regions.length));
      const { started, shown } = emulate('views');
      if (started?.length !== regions.length) throw new Error(`GRUB saw ${started}: ${shown}`);
      return started.split('') as GrubView[];
    },
    [Symbol.dispose]() {
      closeSync(disk);
      rmSync(directory, { recursive: true, force: true });
    },
  };
}

function tableArguments(): readonly string[] {
  const names = { 2: 'esp', 3: 'env', 4: 'root-a', 5: 'root-b' } as const;
  return ([2, 3, 4, 5] as const).flatMap((number) => {
    const [first, count] = parts[number];
    const uuid = number === 4 ? partUuids.a : number === 5 ? partUuids.b : 'R';
    return [
      ...['-n', `${number}:${first}:${first + count - 1}`],
      ...['-c', `${number}:switchback-${names[number]}`, '-u', `${number}:${uuid}`],
    ];
  });
}

function rootImage(
  at: (name: string) => string,
  run: (program: string, ...argv: readonly string[]) => void,
  hasKernel: boolean,
): Uint8Array {
  const tree = at(`root-${hasKernel}`);
  mkdirSync(join(tree, 'boot'), { recursive: true });
  if (hasKernel) writeFileSync(join(tree, 'boot/vmlinuz'), 'kernel');
  writeFileSync(join(tree, 'boot/initrd.img'), 'initrd');
  writeFileSync(at('root.img'), '');
  truncateSync(at('root.img'), parts[4][1] * SECTOR);
  run('mkfs.ext4', '-q', '-F', '-O', '^has_journal', '-d', tree, at('root.img'));
  return readFileSync(at('root.img'));
}

const DECIDES = '# Decides and boots.';

/** GRUB's loop over regions: one letter for each. */
function viewScript(count: number): string {
  const blocks = ORDER_REGION_BYTES / SECTOR;
  const calls = Array.from(
    { length: count },
    (_, index) => `view ${index * blocks} ${index * blocks + 8}\n`,
  );
  return `function view {
  unset sb_seq; unset sb_default; unset sb_trial
  read_copy $1
  read_copy $2
  if [ -z "$sb_seq" ]; then one=-
  elif [ "$sb_trial" = a ]; then one=A
  elif [ "$sb_trial" = b ]; then one=B
  else one="$sb_default"
  fi
  sb_result="$sb_result$one"
}
${calls.join('')}save_env --file (hd0,gpt2)/result.env sb_result
halt
`;
}

/** grub-emu has no `linux`: what is called by that name is then looked for among functions. */
const PRELUDE = `function linux {
  if [ -f "($root)$1" ]; then sb_result="$root $*"; else false; fi
}
function initrd { save_env --file (hd0,gpt2)/result.env sb_result; halt; }
root=hd0,gpt2
`;
