/**
 * The root directory of a version: Debian by mmdebstrap or a root of the operator's own, the agent's package, files and
 * programs of the operator, and at last what makes it the content of a slot (docs/specs/images.md).
 */
import { constants } from 'node:fs';
import { access, cp, mkdir, rm, stat, symlink, writeFile } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { isProblem, Problem } from '#/protocol/errors.ts';
import type { Loader } from './layout.ts';
import { runProgram } from './programs.ts';

export interface RootOptions {
  /** Debian's name of the release; not used when `from` is given. */
  readonly suite: string;
  /** A directory or tar archive to start from, instead of mmdebstrap. Never written to. */
  readonly from: string | null;
  readonly kernel: string;
  /** What boots the hosts: the agent in the root is told. */
  readonly loader: Loader;
  /** Packages besides what boots. */
  readonly include: readonly string[];
  /** Packages as files: the agent's, and the operator's own. */
  readonly packages: readonly string[];
  /** Directories whose content is laid over the root, owned by root. */
  readonly files: readonly string[];
  /** Programs that get the path of the root, after packages and files. */
  readonly hooks: readonly string[];
  /** Seconds since 1970: no file is newer. */
  readonly sourceDateEpoch: number;
  readonly signal: AbortSignal;
  readonly onStep: (text: string) => void;
  readonly onLine: (line: string) => void;
}

/** What boots, mounts and is managed, and nothing else. */
export const BASE_PACKAGES = [
  'systemd',
  'systemd-sysv',
  'udev',
  'kmod',
  'initramfs-tools',
  'zstd',
  'e2fsprogs',
  'dosfstools',
  'libatomic1',
] as const;
/** What nearly every host wants besides: names, time, certificates. */
export const USUAL_PACKAGES = ['systemd-resolved', 'systemd-timesyncd', 'ca-certificates'] as const;

const PREPARE = '/usr/lib/switchback/image/switchback-image-prepare';
const AGENT = '/usr/bin/switchback-agent';
/** Documentation and translations: a third of the files, read by nobody on a host. Licences stay. */
const LEFT_OUT = [
  'path-exclude=/usr/share/doc/*',
  'path-include=/usr/share/doc/*/copyright',
  'path-exclude=/usr/share/man/*',
  'path-exclude=/usr/share/info/*',
  'path-exclude=/usr/share/locale/*/*',
  'path-exclude=/usr/share/lintian/*',
] as const;

/** Makes the root in `directory`, which does not exist yet. Throws E_CONFIG, E_IO, E_USAGE. */
export async function makeRoot(directory: string, options: RootOptions): Promise<void> {
  const { onStep } = options;
  if (process.getuid?.() !== 0)
    throw new Problem('E_USAGE', 'images are made as root: files belong to their owners in them');
  onStep(
    options.from === null ? `Debian ${options.suite} by mmdebstrap` : `root from ${options.from}`,
  );
  await (options.from === null
    ? debian(directory, options)
    : copyOf(directory, options.from, options));
  for (const path of options.packages) {
    onStep(`package ${basename(path)}`);
    await installPackage(directory, path, options);
  }
  for (const path of options.files) {
    onStep(`files of ${path}`);
    await run(options, [
      'cp',
      '-rT',
      '--preserve=mode,links',
      '--remove-destination',
      path,
      directory,
    ]);
  }
  for (const hook of options.hooks) {
    onStep(`program ${hook}`);
    await run(options, [hook, directory]);
  }
  await mustHave(directory, AGENT, 'give its package with --agent');
  await mustHave(
    directory,
    PREPARE,
    'the agent in the root is older than this program: give its package with --agent',
  );
  onStep('initrd, mounts and /var of a slot');
  await inRoot(directory, options, [PREPARE]);
  const settings = join(directory, 'etc/switchback/config.d/06-boot-loader.toml');
  await writeFile(settings, `[boot]\nloader = "${options.loader}"\n`);
  await settleTimes(directory, options);
}

async function debian(directory: string, options: RootOptions): Promise<void> {
  const include = [...BASE_PACKAGES, options.kernel, ...options.include].join(',');
  await run(options, [
    'mmdebstrap',
    '--variant=minbase',
    `--include=${include}`,
    '--aptopt=Apt::Install-Recommends "false"',
    ...LEFT_OUT.map((option) => `--dpkgopt=${option}`),
    '--format=directory',
    options.suite,
    directory,
  ]);
  await forgetBuilder(directory);
}

/** mmdebstrap leaves name and name servers of this machine in the root; hosts would be called so, in every version. */
export async function forgetBuilder(directory: string): Promise<void> {
  await writeFile(join(directory, 'etc/hostname'), 'localhost\n');
  const resolv = join(directory, 'etc/resolv.conf');
  await rm(resolv, { force: true });
  const resolved = join(directory, 'lib/systemd/systemd-resolved');
  if (await exists(resolved)) await symlink('../run/systemd/resolve/stub-resolv.conf', resolv);
}

async function copyOf(directory: string, from: string, options: RootOptions): Promise<void> {
  const found = await stat(from).catch((cause: unknown) => {
    throw new Problem('E_USAGE', `${from} cannot be read`, {}, { cause });
  });
  if (found.isDirectory())
    return await run(options, ['cp', '-a', '--one-file-system', '--reflink=auto', from, directory]);
  await mkdir(directory, { mode: 0o755 });
  await run(options, ['tar', '-x', '--numeric-owner', '--xattrs', '-pf', from, '-C', directory]);
}

/** By the root's own dpkg, without a network: dependencies must be there. */
async function installPackage(
  directory: string,
  path: string,
  options: RootOptions,
): Promise<void> {
  const inside = join('/tmp', basename(path));
  await cp(path, join(directory, inside));
  try {
    await inRoot(directory, options, ['dpkg', '--install', '--force-confold', inside]);
  } catch (cause) {
    if (!isProblem(cause)) throw cause;
    throw new Problem(
      'E_CONFIG',
      `${basename(path)} cannot be installed; packages that it needs are given with --include`,
      {},
      { cause },
    );
  } finally {
    await rm(join(directory, inside), { force: true });
  }
}

/** As the image boots: no service is started, nothing of this machine is seen but /proc and /dev. */
export async function inRoot(
  directory: string,
  options: Pick<RootOptions, 'signal' | 'onLine' | 'sourceDateEpoch'>,
  argv: readonly string[],
): Promise<string> {
  const script = 'mount -t proc proc "$0/proc" && exec chroot "$0" "$@"';
  return await runProgram(
    [
      'unshare',
      '--mount',
      '--pid',
      '--fork',
      '--propagation',
      'private',
      'sh',
      '-c',
      script,
      directory,
      ...argv,
    ],
    {
      signal: options.signal,
      onLine: options.onLine,
      env: { SOURCE_DATE_EPOCH: String(options.sourceDateEpoch), SYSTEMD_OFFLINE: '1' },
    },
  );
}

async function exists(path: string): Promise<boolean> {
  return await access(path).then(
    () => true,
    () => false,
  );
}

async function mustHave(directory: string, path: string, hint: string): Promise<void> {
  await access(join(directory, path), constants.X_OK).catch(() => {
    throw new Problem('E_CONFIG', `the root has no ${path}: ${hint}`);
  });
}

/** Nothing says when it was built: times after the given one become that. */
async function settleTimes(directory: string, options: RootOptions): Promise<void> {
  const at = `@${options.sourceDateEpoch}`;
  await run(options, [
    'find',
    directory,
    '-xdev',
    '-newermt',
    at,
    '-exec',
    'touch',
    '-h',
    '-d',
    at,
    '{}',
    '+',
  ]);
}

async function run(options: RootOptions, argv: readonly string[]): Promise<void> {
  await runProgram(argv, {
    signal: options.signal,
    onLine: options.onLine,
    env: { SOURCE_DATE_EPOCH: String(options.sourceDateEpoch) },
  });
}
