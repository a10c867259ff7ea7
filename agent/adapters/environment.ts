/**
 * The environment of the agent itself: variables by which whoever starts it could change what Node trusts, loads or connects to
 * are taken out before anything else runs (H11). Node reads several of them at its own start, so the agent starts itself again.
 */

/** What the agent may inherit; everything else is dropped. */
const KEPT = new Set([
  'PATH',
  'HOME',
  'LANG',
  'TERM',
  'TZ',
  'COLUMNS',
  'NO_COLOR',
  'NOTIFY_SOCKET',
  'WATCHDOG_USEC',
  'WATCHDOG_PID',
  'INVOCATION_ID',
  'JOURNAL_STREAM',
  'CREDENTIALS_DIRECTORY',
  'NODE_COMPILE_CACHE',
]);
const PATH_DEFAULT = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin';

type Environment = Readonly<Record<string, string | undefined>>;

/** The names that are dropped, and those among them that Node has already acted on. */
export function environmentToDrop(environment: Environment): {
  readonly dropped: readonly string[];
  readonly acted: readonly string[];
} {
  const dropped = Object.keys(environment).filter((variable) => !isKept(variable));
  return { dropped, acted: dropped.filter(isActedOn) };
}

function isKept(variable: string): boolean {
  return KEPT.has(variable) || variable.startsWith('LC_') || variable.startsWith('SWITCHBACK_');
}

/**
 * How the C library gives memory back: our own launcher says so (packaging), and nothing else can be done with it. They are
 * dropped all the same, so that no service inherits them.
 */
const HARMLESS = new Set(['MALLOC_ARENA_MAX', 'MALLOC_MMAP_THRESHOLD_', 'MALLOC_TRIM_THRESHOLD_']);

/** Read by Node, OpenSSL, the loader or the C library before our first line runs. */
function isActedOn(variable: string): boolean {
  if (HARMLESS.has(variable)) return false;
  return /^(?:NODE_|LD_|SSL_|OPENSSL_|UV_|MALLOC_|GLIBC_|ICU_)/.test(variable);
}

/** The environment without them. PATH is a fixed one if it has parts that are not absolute. */
export function cleanEnvironment(environment: Environment): Record<string, string> {
  const clean: Record<string, string> = {};
  for (const [variable, value] of Object.entries(environment)) {
    if (value !== undefined && isKept(variable)) clean[variable] = value;
  }
  const isAbsolute = (clean['PATH'] ?? '').split(':').every((part) => part.startsWith('/'));
  if (!isAbsolute) clean['PATH'] = PATH_DEFAULT;
  return clean;
}

/**
 * Takes the variables out of `process.env`. When Node has acted on one already (NODE_OPTIONS, NODE_EXTRA_CA_CERTS, …), this very
 * process becomes a new run of the same program without them: no parent stays that a signal could hit instead.
 */
export function scrubEnvironment(): void {
  const clean = cleanEnvironment(process.env);
  const { dropped, acted } = environmentToDrop(process.env);
  if (acted.length > 0) {
    const flags = cleanArguments(process.execArgv);
    process.execve?.(
      process.execPath,
      [process.execPath, ...flags, ...process.argv.slice(1)],
      clean,
    );
    throw new Error(`started with ${acted.join(', ')}, and this Node cannot start itself anew`);
  }
  for (const variable of dropped) delete process.env[variable];
  process.env['PATH'] = clean['PATH'] ?? PATH_DEFAULT;
}

/** Flags that load code or open a debugger do not go on. */
function cleanArguments(flags: readonly string[]): readonly string[] {
  return flags.filter(
    (flag) =>
      !/^--(?:require|import|loader|experimental-loader|inspect|env-file|use-openssl-ca|tls-)|^-r/.test(
        flag,
      ),
  );
}
