/** Commands that the image kit runs inside the root of a new image. */
import { resolve } from 'node:path';
import { Problem } from '#/protocol/errors.ts';
import type { CliCommand, Invocation } from './command.ts';
import { type NewDisk, writeNewDisk } from './new-disk.ts';

export const imageCommands: readonly CliCommand[] = [
  {
    name: 'new-disk',
    summary:
      'Write what a new disk with two slots holds in formats of the agent; for builders of images.',
    usage: '',
    minArguments: 0,
    maxArguments: 0,
    options: {
      loader: { type: 'string', value: 'NAME', doc: '`grub` or `systemd-boot`.' },
      bundle: { type: 'string', value: 'FILE', doc: 'Bundle of the version that is in slot a.' },
      'slot-a': { type: 'string', value: 'PARTUUID', doc: 'Root partition of slot a,' },
      'slot-b': { type: 'string', value: 'PARTUUID', doc: 'and of slot b.' },
      'env-partition': {
        type: 'string',
        value: 'NUMBER',
        doc: 'Number of `switchback-env`; default 3.',
      },
      'root-partitions': {
        type: 'string',
        value: 'A,B',
        doc: 'Numbers of the root partitions; default 4,5.',
      },
      root: { type: 'string', value: 'DIR', doc: 'Root of the version; default `/`.' },
      'no-serial': { type: 'boolean', doc: 'The loader speaks on the screen alone.' },
      out: { type: 'string', value: 'DIR', doc: 'Made anew, with `esp/`, `state/` and `env.img`.' },
    },
    examples: [
      'switchback-agent new-disk --loader grub --bundle os-1.bundle --slot-a 0c1e…-… --slot-b 77aa…-… --out ./new',
    ],
    notes: '`switchback image build` does all of it. With `--json`: `{class, version, release}`.',
    async run(invocation) {
      const { class: ofClass, version, release } = await writeNewDisk(newDiskOf(invocation));
      invocation.print(
        { class: ofClass, version, release },
        () => `${ofClass}/${version} (release ${release})\n`,
      );
      return 0;
    },
  },
];

function newDiskOf({ options }: Invocation): NewDisk {
  const text = (name: string, standard?: string): string => {
    const value = options[name] ?? standard;
    if (typeof value !== 'string') throw new Problem('E_USAGE', `--${name} is missing`);
    return value;
  };
  const partUuid = (name: string): string => {
    const value = text(name).toLowerCase();
    if (!/^[0-9a-f][0-9a-f-]{7,35}$/.test(value))
      throw new Problem('E_USAGE', `--${name}: ${value} is no PARTUUID`);
    return value;
  };
  const number = (name: string, value: string | undefined): number => {
    if (value === undefined || !/^[1-9]\d{0,2}$/.test(value))
      throw new Problem('E_USAGE', `--${name}: ${value} is no number of a partition`);
    return Number(value);
  };
  const loader = text('loader');
  if (loader !== 'grub' && loader !== 'systemd-boot')
    throw new Problem('E_USAGE', `--loader: ${loader}; grub or systemd-boot`);
  const [rootA, rootB] = text('root-partitions', '4,5').split(',');
  return {
    loader,
    bundle: resolve(text('bundle')),
    partUuid: { a: partUuid('slot-a'), b: partUuid('slot-b') },
    numbers: {
      env: number('env-partition', text('env-partition', '3')),
      rootA: number('root-partitions', rootA),
      rootB: number('root-partitions', rootB),
    },
    root: resolve(text('root', '/')),
    serial: options['no-serial'] !== true,
    out: resolve(text('out')),
  };
}
