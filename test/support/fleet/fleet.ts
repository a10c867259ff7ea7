/**
 * A whole fleet on one machine: the real control server, the real CLI, real agents, each its own process with its own
 * directories under one folder. Used by the demo, by chaos runs and by end-to-end tests.
 */
import { execFile } from 'node:child_process';
import { randomInt } from 'node:crypto';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { join, resolve } from 'node:path';
import { type Client, createClient, type Send } from '#/protocol/client.ts';
import { buildPrograms, type Programs } from './programs.ts';
import { SupervisedProcess } from './supervised-process.ts';

export const REPOSITORY = resolve(import.meta.dirname, '../../..');
/** Output of one CLI command. */
const MAX_OUTPUT_BYTES = 16 * 1024 * 1024;
const COMMAND_TIMEOUT_MS = 120_000;
const RESTART_DELAY_MS = 300;
const MAX_RESTARTS = 1000;

export interface CommandResult {
  readonly exitCode: number;
  readonly stdout: string;
  readonly stderr: string;
}

/** Below the range that Linux gives out by itself: a killed server finds its port free when it is started again. */
const FIRST_PORT = 10_240;
const LAST_PORT = 32_000;
const PORT_TRIES = 100;

/** An unused TCP port of an address of this machine. */
export async function freePort(address = '127.0.0.1'): Promise<number> {
  for (let n = 0; n < PORT_TRIES; n += 1) {
    const port = randomInt(FIRST_PORT, LAST_PORT);
    if (await isFree(port, address)) return port;
  }
  throw new Error(`no free port on ${address} in ${PORT_TRIES} tries`);
}

async function isFree(port: number, address: string): Promise<boolean> {
  const server = createServer();
  const isListening = await new Promise<boolean>((done) => {
    server.once('error', () => done(false));
    server.listen(port, address, () => done(true));
  });
  if (isListening) await new Promise<void>((done) => server.close(() => done()));
  return isListening;
}

/** Asks `condition` until it answers; throws with `what` and the last seen state when the time is over. */
export async function waitFor<T>(
  what: string,
  timeoutMs: number,
  condition: () => Promise<T | null>,
  intervalMs = 200,
): Promise<T> {
  const until = performance.now() + timeoutMs;
  for (;;) {
    const answer = await condition();
    if (answer !== null) return answer;
    if (performance.now() > until) throw new Error(`not within ${timeoutMs / 1000} s: ${what}`);
    await new Promise((done) => setTimeout(done, intervalMs));
  }
}

export interface FleetHost {
  readonly name: string;
  readonly group: string;
  readonly id: string;
  readonly directory: string;
  readonly configFile: string;
  readonly servicePort: number;
  readonly agent: SupervisedProcess;
}

export interface FleetOptions {
  /** Where control listens; 127.0.0.1 unless given. */
  readonly address?: string;
  /** Where hosts find this machine; the address unless given. */
  readonly publicHost?: string;
  /** Built already, to share them; built into `programs` of the directory unless given. */
  readonly programs?: Programs;
}

/** Variables that every program of the fleet gets: none of the user's own, so that nothing of theirs is read. */
function environment(home: string): Record<string, string> {
  return {
    PATH: process.env['PATH'] ?? '/usr/bin:/bin',
    HOME: home,
    LANG: 'C.UTF-8',
    NO_COLOR: '1',
  };
}

export class Fleet {
  readonly directory: string;
  readonly port: number;
  /** Where control listens. */
  readonly address: string;
  readonly control: SupervisedProcess;
  readonly hosts: FleetHost[] = [];
  readonly #programs: Programs;
  readonly #env: Record<string, string>;

  private constructor(directory: string, programs: Programs, address: string, port: number) {
    this.directory = directory;
    this.#programs = programs;
    this.address = address;
    this.port = port;
    this.#env = {
      ...environment(join(directory, 'home')),
      SWITCHBACK_CONFIG: this.settingsFile,
      // Hosts may know control by another address than this machine does.
      SWITCHBACK_URL: `http://${address}:${port}`,
    };
    this.control = new SupervisedProcess({
      name: 'control',
      argv: [process.execPath, programs.cli, 'serve', '--data', this.dataDirectory],
      env: this.#env,
      logFile: join(directory, 'control.log'),
      restartDelayMs: RESTART_DELAY_MS,
      maxRestarts: MAX_RESTARTS,
    });
  }

  get settingsFile(): string {
    return join(this.directory, 'operator.json');
  }

  get dataDirectory(): string {
    return join(this.directory, 'control');
  }

  get url(): string {
    return `http://${this.address}:${this.port}`;
  }

  /** `switchback init` and `switchback serve`, waited for until it answers. */
  static async create(directory: string, options: FleetOptions = {}): Promise<Fleet> {
    const { address = '127.0.0.1', publicHost = address } = options;
    mkdirSync(join(directory, 'home'), { recursive: true });
    const programs = options.programs ?? (await buildPrograms(join(directory, 'programs')));
    const fleet = new Fleet(directory, programs, address, await freePort(address));
    await fleet.cli([
      'init',
      '--data',
      fleet.dataDirectory,
      '--listen',
      `${address}:${fleet.port}`,
      ...(publicHost === address ? [] : ['--public-url', `http://${publicHost}:${fleet.port}`]),
    ]);
    fleet.control.start();
    await fleet.waitForControl();
    return fleet;
  }

  async waitForControl(): Promise<void> {
    await waitFor(`control answers (log: ${this.control.logFile})`, 30_000, async () => {
      const answer = await fetch(`${this.url}/healthz`).catch(() => null);
      return answer?.ok === true ? true : null;
    });
  }

  /** The operator's API, for what is asked often: a process per question would load the machine that is measured. */
  api(): Client {
    const settings = JSON.parse(readFileSync(this.settingsFile, 'utf8')) as { token: string };
    const send: Send = async ({ method, path, headers, body }) => {
      const init = {
        method,
        headers: { ...headers },
        ...(body === null ? {} : { body: await whole(body) }),
      };
      const answer = await fetch(`${this.url}${path}`, init);
      return {
        status: answer.status,
        headers: Object.fromEntries(answer.headers),
        body: chunksOf(new Uint8Array(await answer.arrayBuffer())),
      };
    };
    return createClient(send, { authorization: `Bearer ${settings.token}` });
  }

  /** Runs one `switchback` command; throws with its output when it fails. */
  async cli(args: readonly string[]): Promise<CommandResult> {
    const result = await this.tryCli(args);
    if (result.exitCode === 0) return result;
    throw new Error(`switchback ${args.join(' ')}: exit ${result.exitCode}\n${result.stderr}`);
  }

  /** The same, for commands that are expected to be refused. */
  async tryCli(args: readonly string[]): Promise<CommandResult> {
    return runNode([this.#programs.cli, ...args], this.#env);
  }

  /** The parsed `--json` answer of a command. */
  async json<T>(args: readonly string[]): Promise<T> {
    return JSON.parse((await this.cli([...args, '--json'])).stdout) as T;
  }

  /** Runs one `switchback-agent` command on a host. */
  async agentCommand(host: FleetHost, args: readonly string[]): Promise<CommandResult> {
    return runNode([this.#programs.agent, ...args, '--config', host.configFile], this.#env);
  }

  /** Enrols a new host into a group with a join token, and starts its agent. */
  async addHost(name: string, group: string): Promise<FleetHost> {
    const directory = join(this.directory, 'hosts', name);
    mkdirSync(join(directory, 'state'), { recursive: true });
    mkdirSync(join(directory, 'run'), { recursive: true });
    const servicePort = await freePort();
    const configFile = join(directory, 'agent.toml');
    writeFileSync(
      join(directory, 'machine-id'),
      `${Buffer.from(name).toString('hex').padEnd(32, '0').slice(0, 32)}\n`,
    );
    writeFileSync(configFile, agentConfig(directory, servicePort));
    const { join: token } = await this.json<{ join: string }>(['host', 'token', '--group', group]);
    const enrolled = await runNode(
      [this.#programs.agent, 'enrol', token, '--config', configFile, '--json'],
      this.#env,
    );
    if (enrolled.exitCode !== 0)
      throw new Error(`enrol ${name}: ${enrolled.stderr}${enrolled.stdout}`);
    const { host: id } = JSON.parse(enrolled.stdout) as { host: string };
    const agent = new SupervisedProcess({
      name,
      argv: [process.execPath, this.#programs.agent, 'run', '--config', configFile],
      env: this.#env,
      logFile: join(directory, 'agent.log'),
      restartDelayMs: RESTART_DELAY_MS,
      maxRestarts: MAX_RESTARTS,
    });
    const host = { name, group, id, directory, configFile, servicePort, agent };
    this.hosts.push(host);
    agent.start();
    return host;
  }

  /** Ends agents, the services that they supervise, and control. */
  async stop(): Promise<void> {
    await Promise.all(this.hosts.map((host) => host.agent.stop()));
    for (const host of this.hosts) stopService(host);
    await this.control.stop();
  }
}

/** The process of the service outlives its agent on purpose; its pid file tells which one it is. */
export function servicePid(host: FleetHost): number | null {
  try {
    const record = JSON.parse(
      readFileSync(join(host.directory, 'run', 'process.json'), 'utf8'),
    ) as { pid: number };
    return record.pid;
  } catch {
    return null;
  }
}

function stopService(host: FleetHost): void {
  const pid = servicePid(host);
  if (pid === null) return;
  try {
    process.kill(pid, 'SIGTERM');
  } catch {
    // It has ended already.
  }
}

function agentConfig(directory: string, servicePort: number): string {
  return `# Host of a fleet on one machine: short intervals, everything below one directory.
[state]
directory = "${join(directory, 'state')}"
run_directory = "${join(directory, 'run')}"

[host]
class = "demo"
machine_id_file = "${join(directory, 'machine-id')}"

[slots]
root = "${join(directory, 'slots')}"

[local]
socket = "${join(directory, 'run', 'agent.sock')}"

[poll]
interval_ms = 1000
min_interval_ms = 200
first_spread_ms = 0

[activation]
environment = { PORT = "${servicePort}" }
restart_max_delay_ms = 1000

[check.answers]
kind = "http"
url = "http://127.0.0.1:${servicePort}/healthz"
interval_ms = 250
timeout_ms = 1000
# The service is a Node program of its own: on a busy machine it takes more than a moment to listen.
start_after_ms = 1500
successes_needed = 3
failures_allowed = 2
baseline = "must-pass"
`;
}

async function runNode(
  args: readonly string[],
  env: Record<string, string>,
): Promise<CommandResult> {
  return new Promise((done) => {
    execFile(
      process.execPath,
      args,
      { env, maxBuffer: MAX_OUTPUT_BYTES, timeout: COMMAND_TIMEOUT_MS },
      (error, stdout, stderr) => {
        const exitCode = error === null ? 0 : typeof error.code === 'number' ? error.code : 1;
        done({ exitCode, stdout, stderr });
      },
    );
  });
}

async function* chunksOf(bytes: Uint8Array): AsyncIterable<Uint8Array> {
  yield bytes;
}

async function whole(
  body: Uint8Array | AsyncIterable<Uint8Array>,
): Promise<Uint8Array<ArrayBuffer>> {
  if (body instanceof Uint8Array) return new Uint8Array(body);
  const parts: Uint8Array[] = [];
  for await (const part of body) parts.push(part);
  return new Uint8Array(Buffer.concat(parts));
}
