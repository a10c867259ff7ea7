/** Hosts whose boot loader is told by a program: the real fw_setenv on a file, and a program with the five verbs. */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { crc32 } from 'node:zlib';
import type { PartitionSlot } from '#/agent/adapters/boot/backend.ts';
import { customBackend } from '#/agent/adapters/boot/custom.ts';
import { readPart } from '#/agent/adapters/boot/raw-region.ts';
import { ubootBackend } from '#/agent/adapters/boot/uboot.ts';
import { readUbootEnv } from '#/agent/adapters/boot/uboot-env.ts';
import { createExec } from '#/agent/adapters/exec.ts';
import type { BackendHost } from '#/test/conformance/boot/backend.ts';
import { bootFiles } from './sim-hosts.ts';
import { tornWrites } from './torn-writes.ts';

const ENV_BYTES = 2048;
const POSITIONS = [0, 4096] as const;
const DISK_BYTES = 8192;

export function hasFwSetenv(): boolean {
  return spawnSync('sh', ['-c', 'command -v fw_setenv']).status === 0;
}

/** One copy of a redundant environment as U-Boot saves it. */
function encodeEnv(values: ReadonlyMap<string, string>, flag: number): Uint8Array {
  const bytes = Buffer.alloc(ENV_BYTES);
  const text = [...values].map(([name, value]) => `${name}=${value}\0`).join('');
  bytes.write(`${text}\0`, 5, 'latin1');
  bytes[4] = flag;
  bytes.writeUInt32LE(crc32(bytes.subarray(5)), 0);
  return bytes;
}

const copiesOf = (disk: Uint8Array): readonly Uint8Array[] =>
  POSITIONS.map((position) => disk.subarray(position, position + ENV_BYTES));

/** What the boot script does: counts down and saves before it boots the trial. */
function bootScript(disk: Uint8Array): PartitionSlot {
  const values = new Map(readUbootEnv(copiesOf(disk)).values ?? []);
  const [trial, standard, bad] = ['trial', 'default', 'bad'].map((name) =>
    values.get(`switchback_${name}`),
  );
  const left = Number(values.get('switchback_left') ?? 0);
  const isTried =
    (trial === 'a' || trial === 'b') && trial !== standard && trial !== bad && left > 0;
  if (!isTried) return standard === 'b' ? 'b' : 'a';
  values.set('switchback_left', String(left - 1));
  const flags = POSITIONS.map((position) => disk[position + 4] ?? 0);
  const current = flags[1] === 0 || (flags[0] ?? 0) > (flags[1] ?? 0) ? 0 : 1;
  disk.set(encodeEnv(values, (flags[current] ?? 0) + 1), POSITIONS[current === 0 ? 1 : 0]);
  return trial;
}

function firstEnv(): Uint8Array {
  const values = {
    v: '1',
    default: 'a',
    trial: 'none',
    left: '0',
    bad: 'b',
    args_a: '',
    args_b: '',
  };
  const disk = new Uint8Array(DISK_BYTES);
  const named = new Map(
    Object.entries(values).map(([name, value]) => [`switchback_${name}`, value]),
  );
  for (const [index, position] of POSITIONS.entries())
    disk.set(encodeEnv(named, index + 1), position);
  return disk;
}

const directories: string[] = [];

/** To be called when no host is used any more: hosts are copied all the time, so their directories go together. */
export function removeHosts(): void {
  for (const directory of directories.splice(0))
    rmSync(directory, { recursive: true, force: true });
}

function hostDirectory(kind: string): string {
  const directory = mkdtempSync(join(tmpdir(), `switchback-${kind}-`));
  directories.push(directory);
  return directory;
}

/** U-Boot: the real fw_setenv writes, and the environment is torn at its sectors. */
export function ubootHost(disk: Uint8Array = firstEnv(), program = 'fw_setenv'): BackendHost {
  const directory = hostDirectory('uboot');
  const image = join(directory, 'env.img');
  const config = join(directory, 'fw_env.config');
  writeFileSync(image, disk);
  const lines = POSITIONS.map((position) => `${image} ${position} ${ENV_BYTES.toString(16)}`);
  writeFileSync(config, `# device offset size\n${lines.join('\n')}\n`);
  const now = (): Uint8Array => new Uint8Array(readFileSync(image));
  return {
    backend: ubootBackend({
      exec: createExec(),
      config,
      program,
      readConfig: () => Promise.resolve(readFileSync(config, 'utf8')),
      read: readPart,
    }),
    files: bootFiles,
    boot() {
      const changed = now();
      const slot = bootScript(changed);
      writeFileSync(image, changed);
      return Promise.resolve(slot);
    },
    copy: () => Promise.resolve(ubootHost(now())),
    losing: () => Promise.resolve(ubootHost(now(), 'true')),
    async *cuts(act) {
      const before = now();
      await using acting = ubootHost(before) as BackendHost & { readonly image: string };
      await act(acting.backend);
      const after = new Uint8Array(readFileSync(acting.image));
      for (const position of POSITIONS) {
        const bytes = after.subarray(position, position + ENV_BYTES);
        if (Buffer.compare(bytes, before.subarray(position, position + ENV_BYTES)) === 0) continue;
        let count = 0;
        for (const torn of tornWrites(before, position, bytes)) {
          count += 1;
          if (count <= 4 || count % 1009 === 0) yield { host: ubootHost(torn), isDone: false };
        }
      }
      yield { host: ubootHost(after), isDone: true };
    },
    [Symbol.asyncDispose]: () =>
      Promise.resolve(rmSync(directory, { recursive: true, force: true })),
    ...{ image },
  };
}

const PROGRAM = `#!/bin/sh
set -eu
state=\${0%/*}/state
. "$state"
case $1 in
  get) ;;
  set-default) default=$2 trial=none tries_left=0; [ "$bad" != "$2" ] || bad=none ;;
  set-trial) trial=$2 tries_left=$3; [ "$bad" != "$2" ] || bad=none ;;
  set-bad) bad=$2; [ "$trial" != "$2" ] || { trial=none; tries_left=0; } ;;
  install) [ -n "$SWITCHBACK_KERNEL$SWITCHBACK_ARTIFACT$SWITCHBACK_VERSION$SWITCHBACK_ARGUMENTS" ] ;;
  *) exit 2 ;;
esac
text="default=$default
trial=$trial
tries_left=$tries_left
bad=$bad"
echo "$text"
[ -e "\${0%/*}/losing" ] || { echo "$text" >"$state.new" && mv "$state.new" "$state"; }
`;
const FIRST = 'default=a\ntrial=none\ntries_left=0\nbad=b\n';

/** A program with the five verbs; what it does at a power cut is its own matter. */
export function customHost(state = FIRST, isLosing = false): BackendHost {
  const directory = hostDirectory('custom');
  const at = (name: string): string => join(directory, name);
  writeFileSync(at('program'), PROGRAM, { mode: 0o755 });
  writeFileSync(at('state'), state);
  if (isLosing) writeFileSync(at('losing'), '');
  const now = (): string => readFileSync(at('state'), 'utf8');
  return {
    backend: customBackend({ exec: createExec(), program: at('program') }),
    files: bootFiles,
    boot() {
      const values = new Map(
        now()
          .trim()
          .split('\n')
          .map((line) => line.split('=') as [string, string]),
      );
      const left = Number(values.get('tries_left'));
      const trial = values.get('trial');
      if ((trial === 'a' || trial === 'b') && left > 0) {
        values.set('tries_left', String(left - 1));
        writeFileSync(at('state'), `${[...values].map((one) => one.join('=')).join('\n')}\n`);
        return Promise.resolve(trial);
      }
      return Promise.resolve(values.get('default') === 'b' ? 'b' : 'a');
    },
    copy: () => Promise.resolve(customHost(now())),
    losing: () => Promise.resolve(customHost(now(), true)),
    async *cuts(act) {
      const acting = await this.copy();
      await act(acting.backend);
      yield { host: acting, isDone: true };
    },
    [Symbol.asyncDispose]: () =>
      Promise.resolve(rmSync(directory, { recursive: true, force: true })),
  };
}
