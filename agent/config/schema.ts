/**
 * Every setting of the agent: type, default, range and meaning in one place. TOML files write the keys in snake_case.
 * `docs/reference/config.md` is generated from this table (agent/config/reference.ts).
 */
import * as v from 'valibot';
import { name } from '#/protocol/ids.ts';
import { bootSection, slotsSection } from './schema-slots.ts';
import { downloadSettings } from './download.ts';

const HOUR_MS = 3_600_000;
const DAY_MS = 24 * HOUR_MS;

const whole = (min: number, max: number) =>
  v.pipe(v.number(), v.safeInteger(), v.minValue(min), v.maxValue(max));
const path = v.pipe(v.string(), v.regex(/^\/[^\0]*$/, 'expected an absolute path'));
const text = (max: number) => v.pipe(v.string(), v.minLength(1), v.maxLength(max));
const argv = v.pipe(v.array(text(4096)), v.minLength(1), v.maxLength(64));
const controlUrl = v.pipe(
  v.string(),
  v.maxLength(2048),
  v.regex(/^https?:\/\/[^\s/?#@]+$/, 'expected http(s)://host[:port] without a path'),
);
const listenAddress = v.pipe(
  v.string(),
  v.regex(
    /^(?:|unix:\/[^\0]+|127\.0\.0\.1:\d{1,5}|\[::1\]:\d{1,5})$/,
    'expected unix:/path, 127.0.0.1:port, [::1]:port, or nothing',
  ),
);
const environmentName = v.pipe(
  v.string(),
  v.regex(/^[A-Za-z_][A-Za-z0-9_]{0,127}$/, 'expected a name of an environment variable'),
);

export const windowSetting = v.strictObject({
  enabled: v.optional(
    v.pipe(v.boolean(), v.description('`false` takes out a window of an earlier file.')),
    true,
  ),
  cron: v.pipe(
    text(256),
    v.description('When the window opens: five cron fields, or six with seconds first.'),
  ),
  zone: v.optional(
    v.pipe(text(64), v.description('Time zone of `cron`, a name of the IANA database.')),
    'UTC',
  ),
  durationMs: v.pipe(
    whole(60_000, 7 * DAY_MS),
    v.description('How long it stays open, in elapsed time, also across a change of the clocks.'),
  ),
  finishBy: v.optional(
    v.pipe(
      v.string(),
      v.regex(/^(?:[01]\d|2[0-3]):[0-5]\d$/, 'expected HH:MM'),
      v.description(
        'Close at this time of day in `zone`, if that is earlier than the duration says.',
      ),
    ),
  ),
});

export const checkSetting = v.strictObject({
  enabled: v.optional(
    v.pipe(v.boolean(), v.description('`false` takes out a check of an earlier file.')),
    true,
  ),
  kind: v.pipe(
    v.picklist(['http', 'tcp', 'exec', 'unit', 'process', 'file', 'resource']),
    v.description('What is measured; each kind has its own keys below.'),
  ),
  required: v.optional(
    v.pipe(
      v.boolean(),
      v.description('A failing required check ends the trial; others are only reported.'),
    ),
    true,
  ),
  baseline: v.optional(
    v.pipe(
      v.picklist(['must-pass', 'not-worse']),
      v.description('`not-worse`: a check that failed before the switch may fail after it.'),
    ),
    'not-worse',
  ),
  timeoutMs: v.optional(v.pipe(whole(1, 600_000), v.description('Default: `probe.timeout_ms`.'))),
  intervalMs: v.optional(v.pipe(whole(1, 600_000), v.description('Default: `probe.interval_ms`.'))),
  successesNeeded: v.optional(
    v.pipe(whole(1, 1000), v.description('Default: `probe.successes_needed`.')),
  ),
  failuresAllowed: v.optional(
    v.pipe(whole(0, 1000), v.description('Default: `probe.failures_allowed`.')),
  ),
  startAfterMs: v.optional(
    v.pipe(whole(0, DAY_MS), v.description('Not run before, after the switch.')),
    0,
  ),
  url: v.optional(v.pipe(text(2048), v.description('http: what is fetched.'))),
  status: v.optional(v.pipe(whole(100, 599), v.description('http: expected status; default 200.'))),
  bodyIncludes: v.optional(
    v.pipe(text(1024), v.description('http: text that the body must contain.')),
  ),
  host: v.optional(v.pipe(text(255), v.description('tcp: where to connect; default 127.0.0.1.'))),
  port: v.optional(v.pipe(whole(1, 65_535), v.description('tcp: port.'))),
  argv: v.optional(
    v.pipe(argv, v.description('exec: program and arguments; exit code 0 is success.')),
  ),
  unit: v.optional(v.pipe(text(255), v.description('unit: a systemd unit that must be active.'))),
  executable: v.optional(
    v.pipe(text(4096), v.description('process: absolute path of a program that must run.')),
  ),
  path: v.optional(v.pipe(path, v.description('file: must exist.'))),
  maxAgeMs: v.optional(
    v.pipe(whole(1, 365 * DAY_MS), v.description('file: written at most so long ago.')),
  ),
  minDiskFreeBytes: v.optional(
    v.pipe(
      whole(0, Number.MAX_SAFE_INTEGER),
      v.description('resource: free space where the slots are.'),
    ),
  ),
  minMemoryFreeBytes: v.optional(
    v.pipe(whole(0, Number.MAX_SAFE_INTEGER), v.description('resource: available memory.')),
  ),
  maxLoadPerCorePercent: v.optional(
    v.pipe(
      whole(1, 100_000),
      v.description('resource: load over one minute, per core, in hundredths.'),
    ),
  ),
});

/** Sections of the configuration, in the order of the reference page. */
export const settingsSchema = v.strictObject({
  state: v.strictObject({
    directory: v.optional(
      v.pipe(
        path,
        v.description(
          'Journal, ticket, identity, trust state. Never inside a slot; best a file system of its own.',
        ),
      ),
      '/var/lib/switchback',
    ),
    runDirectory: v.optional(
      v.pipe(path, v.description('Heartbeat, socket, process ids: gone after a reboot.')),
      '/run/switchback',
    ),
  }),
  host: v.strictObject({
    class: v.optional(
      v.pipe(
        name,
        v.description(
          'Class of artifacts that this host accepts. An enrolled host has it from control.',
        ),
      ),
    ),
    machineIdFile: v.optional(
      v.pipe(path, v.description('A change of its content means that this is a clone.')),
      '/etc/machine-id',
    ),
  }),
  slots: slotsSection,
  boot: bootSection,
  control: v.strictObject({
    urls: v.optional(
      v.pipe(
        v.array(controlUrl),
        v.maxLength(8),
        v.description(
          'Where control answers, best first. Empty: from the enrolment, or no control at all.',
        ),
      ),
      [],
    ),
    caFile: v.optional(
      v.pipe(
        path,
        v.description('PEM file: the only authorities whose certificates control may have.'),
      ),
    ),
    connectTimeoutMs: v.optional(
      v.pipe(whole(100, 120_000), v.description('Limit for connection and TLS handshake.')),
      10_000,
    ),
    headersTimeoutMs: v.optional(
      v.pipe(whole(100, 300_000), v.description('Limit until the headers of an answer are there.')),
      30_000,
    ),
    bodyTimeoutMs: v.optional(
      v.pipe(whole(100, 300_000), v.description('Limit between two pieces of a body.')),
      30_000,
    ),
  }),
  trust: v.strictObject({
    anchorDirectory: v.optional(
      v.pipe(
        path,
        v.description(
          'Hosts without control: `root.json` and `targets.json` by which `install FILE` is verified.',
        ),
      ),
      '/usr/lib/switchback/trust',
    ),
    refreshMs: v.optional(
      v.pipe(
        whole(1_000, DAY_MS),
        v.description(
          'Time between two looks whether the signed metadata is fresh, also when nothing is offered.',
        ),
      ),
      3_600_000,
    ),
    keyMaxAgeMs: v.optional(
      v.pipe(
        whole(60_000, 3650 * DAY_MS),
        v.description('The keys of the host are replaced when they are older than this.'),
      ),
      90 * DAY_MS,
    ),
  }),
  poll: v.strictObject({
    intervalMs: v.optional(
      v.pipe(
        whole(200, DAY_MS),
        v.description('Time between polls where control does not say it.'),
      ),
      300_000,
    ),
    minIntervalMs: v.optional(
      v.pipe(whole(100, HOUR_MS), v.description('Never polls faster, whatever control says.')),
      5_000,
    ),
    maxIntervalMs: v.optional(
      v.pipe(whole(1_000, 7 * DAY_MS), v.description('Never waits longer, whatever control says.')),
      HOUR_MS,
    ),
    firstSpreadMs: v.optional(
      v.pipe(
        whole(0, HOUR_MS),
        v.description(
          'The first poll after a boot is spread over at most this time, by host and boot.',
        ),
      ),
      120_000,
    ),
  }),
  download: downloadSettings,
  window: v.optional(
    v.pipe(
      v.record(name, windowSetting),
      v.maxEntries(32),
      v.description(
        'Maintenance windows by name. A switch starts only in an open one; without any, always.',
      ),
    ),
    {},
  ),
  hooks: v.strictObject({
    drain: v.optional(
      v.pipe(argv, v.description('Moves work off the host before a switch; exit code 0: drained.')),
    ),
    drainTimeoutMs: v.optional(
      v.pipe(
        whole(1_000, DAY_MS),
        v.description('A drain that takes longer is ended and has failed.'),
      ),
      600_000,
    ),
    undrain: v.optional(
      v.pipe(argv, v.description('Takes work on again, after a commit or a rollback.')),
    ),
    undrainTimeoutMs: v.optional(
      v.pipe(whole(1_000, DAY_MS), v.description('Limit of `undrain`.')),
      60_000,
    ),
  }),
  probe: v.strictObject({
    timeoutMs: v.optional(
      v.pipe(whole(1, 600_000), v.description('One run of a local check.')),
      10_000,
    ),
    intervalMs: v.optional(v.pipe(whole(1, 600_000), v.description('Between two runs.')), 5_000),
    successesNeeded: v.optional(
      v.pipe(whole(1, 1000), v.description('In a row, until it has passed.')),
      3,
    ),
    failuresAllowed: v.optional(
      v.pipe(whole(0, 1000), v.description('In a row, that are forgiven.')),
      2,
    ),
  }),
  check: v.optional(
    v.pipe(
      v.record(name, checkSetting),
      v.maxEntries(32),
      v.description('Health checks of this host by name, beside those of the manifest.'),
    ),
    {},
  ),
  activation: v.strictObject({
    kind: v.optional(
      v.pipe(
        v.picklist(['manifest', 'none', 'units', 'command', 'process']),
        v.description('How versions are started here; `manifest`: as the artifact says.'),
      ),
      'manifest',
    ),
    units: v.optional(
      v.pipe(
        v.array(text(255)),
        v.minLength(1),
        v.maxLength(64),
        v.description('units: restarted in order.'),
      ),
    ),
    start: v.optional(
      v.pipe(
        argv,
        v.description(
          'command: starts the version; process: the program itself. `{slot}` is its directory.',
        ),
      ),
    ),
    stop: v.optional(v.pipe(argv, v.description('command: stops what runs.'))),
    timeoutMs: v.optional(
      v.pipe(
        whole(100, 600_000),
        v.description('command: limit of start and of stop; process: until SIGKILL.'),
      ),
      30_000,
    ),
    environment: v.optional(
      v.pipe(
        v.record(environmentName, v.pipe(v.string(), v.maxLength(32_768))),
        v.maxEntries(128),
        v.description('Variables for the program, beside PATH, LANG and the SWITCHBACK_ ones.'),
      ),
      {},
    ),
    user: v.optional(
      v.pipe(text(64), v.description('process: account to run as; default: that of the agent.')),
    ),
    workingDirectory: v.optional(
      v.pipe(text(4096), v.description('process: where it runs, `{slot}` is the version.')),
      '{slot}',
    ),
    logFile: v.optional(
      v.pipe(
        path,
        v.description(
          'process: where its output goes. Default: `log/service.log` in the state directory.',
        ),
      ),
    ),
    logMaxBytes: v.optional(
      v.pipe(
        whole(4096, 2 ** 32),
        v.description('process: its output is kept up to twice this size.'),
      ),
      4 * 1024 * 1024,
    ),
    stopWithAgent: v.optional(
      v.pipe(
        v.boolean(),
        v.description(
          'process: stopped when the agent ends. Otherwise it runs on, and the next agent adopts it.',
        ),
      ),
      false,
    ),
    restartMaxDelayMs: v.optional(
      v.pipe(
        whole(10, HOUR_MS),
        v.description('process: longest pause before it is started again.'),
      ),
      30_000,
    ),
  }),
  config: v.strictObject({
    directory: v.optional(
      v.pipe(
        path,
        v.description(
          'Where services find the entries of their config set, one directory each; must be in memory (tmpfs).',
        ),
      ),
      '/run/switchback/secrets',
    ),
    allowDisk: v.optional(
      v.pipe(v.boolean(), v.description('Take a directory that is not in memory: for tests.')),
      false,
    ),
  }),
  guard: v.strictObject({
    heartbeatIntervalMs: v.optional(
      v.pipe(
        whole(100, 60_000),
        v.description('How often the agent shows the guard that it lives.'),
      ),
      5_000,
    ),
    heartbeatLostMs: v.optional(
      v.pipe(
        whole(1_000, HOUR_MS),
        v.description('Without a heartbeat for so long, the guard ends a trial.'),
      ),
      120_000,
    ),
  }),
  log: v.strictObject({
    level: v.optional(
      v.pipe(
        v.picklist(['trace', 'debug', 'info', 'warn', 'error']),
        v.description('Lines of lower levels are not written.'),
      ),
      'info',
    ),
  }),
  local: v.strictObject({
    socket: v.optional(
      v.pipe(
        path,
        v.description(
          'Socket of the commands; only root may use it. Without it: `agent.sock` in `state.run_directory`.',
        ),
      ),
    ),
  }),
  metrics: v.strictObject({
    listen: v.optional(
      v.pipe(
        listenAddress,
        v.description('Where Prometheus may read; only loopback or a Unix socket.'),
      ),
      '',
    ),
  }),
});

type Output = v.InferOutput<typeof settingsSchema>;
/** The settings in force: the socket follows the run directory. */
export type Settings = Output & { readonly local: { readonly socket: string } };
export type WindowSetting = v.InferOutput<typeof windowSetting>;
export type CheckSetting = v.InferOutput<typeof checkSetting>;
