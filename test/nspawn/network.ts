/** Network namespaces of the containers, each with one cable to a bridge of this machine on which control listens. */
import { execFile } from 'node:child_process';
import { promisify } from 'node:util';

const run = promisify(execFile);
const ip = async (...args: readonly string[]): Promise<void> => {
  await run('ip', [...args]);
};

/** Without one of its own a bridge takes that of a cable, and another one when that cable goes: nobody reaches it for a while. */
const BRIDGE_ADDRESS = '02:53:42:00:00:01';

export class TestNetwork {
  readonly #tag: string;
  readonly #prefix: string;
  readonly #namespaces: string[] = [];
  #last = 1;

  private constructor(tag: string, prefix: string) {
    this.#tag = tag;
    this.#prefix = prefix;
  }

  /** A bridge whose name and addresses nobody else uses: from the pid. */
  static async create(): Promise<TestNetwork> {
    const tag = `sb${(process.pid % 46_656).toString(36)}`;
    const network = new TestNetwork(tag, `10.213.${process.pid % 256}`);
    await ip('link', 'add', network.#bridge, 'address', BRIDGE_ADDRESS, 'type', 'bridge');
    await ip('addr', 'add', `${network.address}/24`, 'dev', network.#bridge);
    await ip('link', 'set', network.#bridge, 'up');
    return network;
  }

  get #bridge(): string {
    return `${this.#tag}br`;
  }

  /** Where control listens. */
  get address(): string {
    return `${this.#prefix}.1`;
  }

  /** A namespace that keeps its address over all boots of its container. Resolves with its path. */
  async join(): Promise<string> {
    this.#last += 1;
    const number = this.#last;
    const namespace = `${this.#tag}n${number}`;
    const cable = `${this.#tag}v${number}`;
    await ip('netns', 'add', namespace);
    this.#namespaces.push(namespace);
    await ip('link', 'add', cable, 'type', 'veth', 'peer', 'name', 'host0', 'netns', namespace);
    await ip('link', 'set', cable, 'master', this.#bridge, 'up');
    await ip('-n', namespace, 'addr', 'add', `${this.#prefix}.${number}/24`, 'dev', 'host0');
    await ip('-n', namespace, 'link', 'set', 'host0', 'up');
    await ip('-n', namespace, 'link', 'set', 'lo', 'up');
    return `/run/netns/${namespace}`;
  }

  async close(): Promise<void> {
    for (const namespace of this.#namespaces) await ip('netns', 'delete', namespace);
    await ip('link', 'delete', this.#bridge);
  }
}
