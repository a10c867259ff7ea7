/** A boot loader of the operator's own, behind a program with five verbs. docs/specs/partitions.md, section 6. */
import { describeExit, type Exec } from '#/agent/adapters/exec.ts';
import { Problem } from '#/protocol/errors.ts';
import {
  type BootBackend,
  type BootFiles,
  type BootRecord,
  type PartitionSlot,
  TRIES_MAX,
} from './backend.ts';
import { checkedArguments } from './kernel-arguments.ts';
import { customSurvives } from './survives.ts';

export interface CustomOptions {
  readonly exec: Exec;
  /** Absolute path. */
  readonly program: string;
}

/** `install` copies a kernel; the others are quick. */
const TIMEOUT_MS = 120_000;
const NAMES = ['default', 'trial', 'tries_left', 'bad'] as const;

/** The backend that asks the program. */
export function customBackend({ exec, program }: CustomOptions): BootBackend {
  const call = async (
    argv: readonly string[],
    environment: Readonly<Record<string, string>> = {},
  ): Promise<string> => {
    const result = await exec.run({ argv: [program, ...argv], timeoutMs: TIMEOUT_MS, environment });
    if (result.ended === 'exit' && result.code === 0) return result.stdout;
    throw new Problem('E_BOOT', `${program} ${argv.join(' ')}: ${describeExit(result)}`);
  };
  const observe = async (): Promise<BootRecord> => parseRecord(program, await call(['get']));
  const requireShown = async (
    what: string,
    holds: (record: BootRecord) => boolean,
  ): Promise<void> => {
    if (holds(await observe())) return;
    throw new Problem('E_BOOT', `${program} was told ${what}, and \`get\` does not show it`);
  };
  const refuseDefault = async (slot: PartitionSlot, what: string): Promise<BootRecord> => {
    const record = await observe();
    if (record.default !== slot) return record;
    throw new Problem('E_BOOT', `slot ${slot} is the default and cannot be ${what}`);
  };
  const setBad = async (slot: PartitionSlot): Promise<void> => {
    await call(['set-bad', slot]);
    await requireShown(
      `set-bad ${slot}`,
      ({ bad, trial }) => bad.includes(slot) && trial?.slot !== slot,
    );
  };
  const setDefault = async (slot: PartitionSlot): Promise<void> => {
    await call(['set-default', slot]);
    await requireShown(`set-default ${slot}`, (it) => it.default === slot && it.trial === null);
  };

  return {
    kind: 'custom',
    survives: customSurvives,
    triesMax: TRIES_MAX,
    tellsAttempt: true,
    async selfTest() {
      const { default: standard, problems } = await observe();
      return standard === null ? [`${program} get names no default`, ...problems] : problems;
    },
    observe,
    async markBad(slot) {
      await refuseDefault(slot, 'marked bad');
      await setBad(slot);
    },
    async installBootFiles(slot, files) {
      await call(['install', slot], environmentOf(files));
    },
    async arm(slot, tries) {
      if (tries < 1 || tries > TRIES_MAX) {
        throw new Problem('E_BOOT', `${tries} tries: 1 to ${TRIES_MAX} can be given`);
      }
      const { trial } = await refuseDefault(slot, 'on trial');
      if (trial?.slot === slot) return;
      await call(['set-trial', slot, String(tries)]);
      await requireShown(
        `set-trial ${slot} ${tries}`,
        (it) => it.trial?.slot === slot && it.trial.triesLeft === tries && !it.bad.includes(slot),
      );
    },
    async disarm(slot) {
      if ((await observe()).trial?.slot !== slot) return;
      await call(['set-trial', 'none', '0']);
      await requireShown('set-trial none 0', ({ trial }) => trial === null);
    },
    async commit(slot) {
      if ((await observe()).bad.includes(slot)) {
        throw new Problem('E_BOOT', `slot ${slot} is bad: not committed`);
      }
      await setDefault(slot);
    },
    async setDefault(slot, bad) {
      await setDefault(slot);
      if (bad !== null) await setBad(bad);
    },
    prune: () => Promise.resolve(),
  };
}

function environmentOf({
  source,
  artifactId,
  version,
  kernelArguments,
}: BootFiles): Record<string, string> {
  const files: Record<string, string> =
    source.kind === 'uki'
      ? { SWITCHBACK_UKI: source.image }
      : {
          SWITCHBACK_KERNEL: source.kernel,
          ...(source.initrd === null ? {} : { SWITCHBACK_INITRD: source.initrd }),
        };
  return {
    ...files,
    SWITCHBACK_ARGUMENTS: checkedArguments(kernelArguments),
    SWITCHBACK_ARTIFACT: artifactId,
    SWITCHBACK_VERSION: version,
  };
}

function parseRecord(program: string, text: string): BootRecord {
  const lines = text.split('\n').map((line) => line.trim());
  const [standard, trial, left, bad] = NAMES.map((name) =>
    lines.find((line) => line.startsWith(`${name}=`))?.slice(name.length + 1),
  );
  const isSlot = (value: string | undefined): value is PartitionSlot =>
    value === 'a' || value === 'b';
  const isWhole =
    (isSlot(standard) || standard === 'none') &&
    (isSlot(trial) || trial === 'none') &&
    (isSlot(bad) || bad === 'none') &&
    /^[0-9]{1,3}$/.test(left ?? '');
  if (!isWhole) {
    throw new Problem('E_BOOT', `${program} get: not ${NAMES.join(', ')}: ${text.slice(0, 200)}`);
  }
  return {
    default: isSlot(standard) ? standard : null,
    trial: isSlot(trial) && trial !== standard ? { slot: trial, triesLeft: Number(left) } : null,
    bad: isSlot(bad) ? [bad] : [],
    problems: [],
  };
}
