/** The programs of Debian that images are made with: run with a limit, and named with their package when they are missing. */
import { spawn } from 'node:child_process';
import { Problem } from '#/protocol/errors.ts';

/** Which package brings a program: what `E_CONFIG` tells the operator to install. */
const packages: Readonly<Record<string, string>> = {
  mmdebstrap: 'mmdebstrap',
  mke2fs: 'e2fsprogs',
  sgdisk: 'gdisk',
  'mkfs.vfat': 'dosfstools',
  mcopy: 'mtools',
  mmd: 'mtools',
  'grub-mkimage': 'grub-common',
  chroot: 'coreutils',
  tar: 'tar',
  cp: 'coreutils',
};
/** Of what a program said, so much is kept for the error: the end of it. */
const KEPT_OUTPUT_CHARS = 4000;
const PATH = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin';

export interface RunOptions {
  readonly signal: AbortSignal;
  readonly env?: Readonly<Record<string, string>>;
  readonly input?: string;
  readonly cwd?: string;
  /** Each line that the program says, as it comes. */
  readonly onLine?: (line: string) => void;
}

/** Runs `argv` to its end; resolves with what it wrote. Throws E_CONFIG when it is not installed, E_IO when it fails. */
export async function runProgram(argv: readonly string[], options: RunOptions): Promise<string> {
  const [program = '', ...rest] = argv;
  const child = spawn(program, rest, {
    cwd: options.cwd,
    env: {
      PATH,
      LC_ALL: 'C.UTF-8',
      HOME: '/root',
      DEBIAN_FRONTEND: 'noninteractive',
      ...options.env,
    },
    stdio: ['pipe', 'pipe', 'pipe'],
    signal: options.signal,
  });
  let [out, said, line] = ['', '', ''];
  child.stdout.setEncoding('utf8').on('data', (text: string) => {
    out = (out + text).slice(-1024 * 1024);
    hear(text);
  });
  child.stderr.setEncoding('utf8').on('data', hear);
  child.stdin.on('error', () => undefined).end(options.input ?? '');
  const code = await new Promise<number | string>((resolve, reject) => {
    child.once('error', reject);
    child.once('close', (exit, killedBy) => resolve(exit ?? killedBy ?? 'unknown'));
  }).catch((cause: unknown) => {
    throw notStarted(program, cause as NodeJS.ErrnoException);
  });
  if (code === 0) return out;
  throw new Problem('E_IO', `${argv.join(' ').slice(0, 300)} ended with ${code}: ${said.trim()}`);

  function hear(text: string): void {
    said = (said + text).slice(-KEPT_OUTPUT_CHARS);
    const lines = (line + text).split('\n');
    line = lines.pop() ?? '';
    for (const one of lines) options.onLine?.(one);
  }
}

function notStarted(program: string, cause: NodeJS.ErrnoException): Problem {
  if (cause.name === 'AbortError') return new Problem('E_INTERRUPTED', `${program} was ended`);
  const from = packages[program.slice(program.lastIndexOf('/') + 1)];
  const hint = from === undefined ? '' : `; it is in Debian's package ${from}`;
  return new Problem('E_CONFIG', `${program} cannot be started${hint}`, {}, { cause });
}
