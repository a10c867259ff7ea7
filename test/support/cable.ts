/** Two network namespaces, a host and a server, with one cable between them: what goes wrong on a link goes wrong on this one. */
import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { mkdir, rm, writeFile } from 'node:fs/promises';
import { promisify } from 'node:util';

export const SERVER = '192.0.2.1';
export const HOST = '192.0.2.2';
/** Another one of the same network. */
const OTHER_HOST = '192.0.2.3';
/** What came in at an end, in bytes: read by a program there. */
export const RECEIVED_FILE = '/sys/class/net/net0/statistics/rx_bytes';
const DEVICE = 'net0';
export type End = 'host' | 'server';

/** Where `ip netns exec` finds files of /etc that a namespace has of its own. */
const OWN_ETC = '/etc/netns';
let made = 0;

export class Cable implements AsyncDisposable {
  readonly #name: Readonly<Record<End, string>>;

  private constructor(tag: string) {
    this.#name = { host: `${tag}h`, server: `${tag}s` };
  }

  /** `rate`: of the server, as tc(8) writes it. Names are of this process: nobody else uses them. */
  static async create(rate: string): Promise<Cable> {
    made += 1;
    const cable = new Cable(`sbl${(process.pid % 46_656).toString(36)}x${made}`);
    const { host, server } = cable.#name;
    for (const name of [host, server]) {
      await ip('netns', 'add', name);
      await ip('-n', name, 'link', 'set', 'lo', 'up');
    }
    await ip(
      ...['-n', server, 'link', 'add', DEVICE, 'type', 'veth'],
      ...['peer', 'name', DEVICE, 'netns', host],
    );
    // Large packets are not put together on the way: each has to fit.
    await ip('-n', server, 'link', 'set', DEVICE, 'gso_max_segs', '1');
    await cable.ip('server', 'addr', 'add', `${SERVER}/24`, 'dev', DEVICE);
    await cable.ip('host', 'addr', 'add', `${HOST}/24`, 'dev', DEVICE);
    for (const end of ['server', 'host'] as const) await cable.ip(end, 'link', 'set', DEVICE, 'up');
    await cable.setRate('add', rate);
    // Nobody answers there: names do not resolve, and that shows soon.
    await mkdir(`${OWN_ETC}/${host}`, { recursive: true });
    const resolver = `nameserver ${SERVER}\noptions timeout:1 attempts:1\n`;
    await writeFile(`${OWN_ETC}/${host}/resolv.conf`, resolver);
    return cable;
  }

  /** `ip` in one of the namespaces. */
  async ip(end: End, ...args: readonly string[]): Promise<void> {
    await ip('-n', this.#name[end], ...args);
  }

  /** Takes the device of one end down or up. */
  async setLink(end: End, state: 'up' | 'down'): Promise<void> {
    await this.ip(end, 'link', 'set', DEVICE, state);
  }

  async setMtu(end: End, bytes: number): Promise<void> {
    await this.ip(end, 'link', 'set', DEVICE, 'mtu', String(bytes));
  }

  /** Another address for the host: connections from the old one are dead, and nobody says so. */
  async moveHost(): Promise<void> {
    await this.ip('host', 'addr', 'del', `${HOST}/24`, 'dev', DEVICE);
    await this.ip('host', 'addr', 'add', `${OTHER_HOST}/24`, 'dev', DEVICE);
  }

  async setRate(how: 'add' | 'change', rate: string): Promise<void> {
    const bucket = ['rate', rate, 'burst', '16kb', 'latency', '200ms'];
    const device = ['dev', DEVICE, 'root', 'tbf', ...bucket];
    await run('tc', ['-n', this.#name.server, 'qdisc', how, ...device]);
  }

  /** A program in one of the namespaces; its output can be read, its input written. */
  start(end: End, argv: readonly string[]): ChildProcess {
    return spawn('ip', ['netns', 'exec', this.#name[end], ...argv], {
      stdio: ['pipe', 'pipe', 'inherit'],
    });
  }

  /** Programs in it have ended by then. */
  async [Symbol.asyncDispose](): Promise<void> {
    for (const name of Object.values(this.#name)) await ip('netns', 'delete', name);
    await rm(`${OWN_ETC}/${this.#name.host}`, { recursive: true, force: true });
  }
}

const run = promisify(execFile);
async function ip(...args: readonly string[]): Promise<void> {
  await run('ip', [...args]);
}
