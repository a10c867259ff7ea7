/**
 * U-Boot with two slots: variables in its redundant environment. Each change is one call of fw_setenv (libubootenv), so one write
 * of the copy that is not in use; it is read back by a reader of our own. docs/specs/partitions.md, section 5.
 */
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describeExit, type Exec } from '#/agent/adapters/exec.ts';
import { Problem } from '#/protocol/errors.ts';
import { type BootBackend, type PartitionSlot, TRIES_MAX } from './backend.ts';
import { checkedArguments } from './kernel-arguments.ts';
import { ubootSurvives } from './survives.ts';
import { parseEnvConfig, readUbootEnv, type UbootEnv } from './uboot-env.ts';

export interface UbootOptions {
  readonly exec: Exec;
  /** `/etc/fw_env.config`, where the environment lies. */
  readonly config: string;
  readonly readConfig: () => Promise<string>;
  /** Bytes of a device or file, not from the page cache. */
  readonly read: (path: string, offsetBytes: number, sizeBytes: number) => Promise<Uint8Array>;
  readonly program?: string;
}

const FW_SETENV_TIMEOUT_MS = 60_000;

type Change = Readonly<Record<string, string>>;
const NO_TRIAL: Change = { switchback_trial: 'none', switchback_left: '0' };

/** The backend of a host whose U-Boot has the boot script of docs/operate/boot-loaders.md. */
export function ubootBackend(options: UbootOptions): BootBackend {
  const { exec, config } = options;

  const read = async (): Promise<UbootEnv> => {
    const copies: Uint8Array[] = [];
    for (const { device, offsetBytes, sizeBytes } of parseEnvConfig(await options.readConfig()))
      copies.push(await options.read(device, offsetBytes, sizeBytes));
    const found = readUbootEnv(copies);
    const single =
      copies.length === 1
        ? ['the environment has one copy: a power cut while it is written loses it']
        : [];
    return { ...found, problems: [...found.problems, ...single] };
  };

  /** Writes these variables with one call, unless they stand there, and reads them back. */
  const write = async (change: Change): Promise<void> => {
    const shows = ({ values }: UbootEnv): boolean =>
      values !== null &&
      Object.entries(change).every(([name, value]) => values.get(name) === value);
    const before = await read();
    if (before.values === null)
      throw new Problem('E_BOOT', `U-Boot: ${before.problems.join('; ')}`);
    if (shows(before)) return;
    const directory = await mkdtemp(join(tmpdir(), 'switchback-fw-'));
    try {
      const script = join(directory, 'script');
      const lines = Object.entries({ switchback_v: '1', ...change }).map((one) => one.join('='));
      await writeFile(script, `${lines.join('\n')}\n`);
      const result = await exec.run({
        argv: [options.program ?? 'fw_setenv', '-c', config, '-s', script],
        timeoutMs: FW_SETENV_TIMEOUT_MS,
      });
      if (result.code !== 0) throw new Problem('E_BOOT', `fw_setenv: ${describeExit(result)}`);
    } finally {
      await rm(directory, { recursive: true, force: true });
    }
    if (!shows(await read())) {
      throw new Problem('E_BOOT', "U-Boot's environment does not show what fw_setenv wrote", {
        wanted: change,
      });
    }
  };

  const slotIn = (env: UbootEnv, name: string): PartitionSlot | null => {
    const value = env.values?.get(`switchback_${name}`);
    return value === 'a' || value === 'b' ? value : null;
  };
  const refuseDefault = async (slot: PartitionSlot, what: string): Promise<UbootEnv> => {
    const env = await read();
    if (slotIn(env, 'default') !== slot) return env;
    throw new Problem('E_BOOT', `slot ${slot} is the default and cannot be ${what}`);
  };
  const notBad = (env: UbootEnv, slot: PartitionSlot): Change =>
    slotIn(env, 'bad') === slot ? { switchback_bad: 'none' } : {};

  return {
    kind: 'uboot',
    survives: ubootSurvives,
    triesMax: TRIES_MAX,
    tellsAttempt: true,

    async selfTest() {
      const env = await read();
      const lacks =
        slotIn(env, 'default') === null ? ['switchback_default is neither a nor b'] : [];
      return [...env.problems, ...lacks];
    },

    async observe() {
      const env = await read();
      const standard = slotIn(env, 'default');
      const bad = slotIn(env, 'bad');
      const slot = slotIn(env, 'trial');
      const left = Number(/^[0-3]$/.exec(env.values?.get('switchback_left') ?? '')?.[0] ?? 0);
      const isTrial = slot !== null && slot !== standard && slot !== bad;
      return {
        default: standard,
        trial: isTrial ? { slot, triesLeft: left } : null,
        bad: bad === null || bad === standard ? [] : [bad],
        problems: env.problems,
      };
    },

    async markBad(slot) {
      await refuseDefault(slot, 'marked bad');
      await write({ ...NO_TRIAL, switchback_bad: slot });
    },

    async installBootFiles(slot, given) {
      if (given.source.kind !== 'linux') {
        throw new Problem('E_BOOT', 'U-Boot starts /boot/vmlinuz of the image, which has none');
      }
      await write({ [`switchback_args_${slot}`]: checkedArguments(given.kernelArguments) });
    },

    async arm(slot, tries) {
      if (tries < 1 || tries > TRIES_MAX) {
        throw new Problem('E_BOOT', `${tries} tries: 1 to ${TRIES_MAX} can be given`);
      }
      const env = await refuseDefault(slot, 'on trial');
      if (slotIn(env, 'trial') === slot) return;
      const trial = { switchback_trial: slot, switchback_left: String(tries) };
      await write({ ...trial, ...notBad(env, slot) });
    },

    async disarm(slot) {
      if (slotIn(await read(), 'trial') === slot) await write(NO_TRIAL);
    },

    async commit(slot) {
      const env = await read();
      if (slotIn(env, 'bad') === slot) {
        throw new Problem('E_BOOT', `slot ${slot} is bad: not committed`);
      }
      await write({ ...NO_TRIAL, switchback_default: slot });
    },

    async setDefault(slot, bad) {
      const env = await read();
      const marked = bad === null ? notBad(env, slot) : { switchback_bad: bad };
      await write({ ...NO_TRIAL, switchback_default: slot, ...marked });
    },

    prune: () => Promise.resolve(),
  };
}
