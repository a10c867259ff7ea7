/**
 * A real control with a real agent beside it, attacked by requests. Whatever is tried, four things are asked for: the code of
 * the refusal, that what hosts run and what is pinned is what it was, that no signed role went back, that the refusal is told.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect } from 'vitest';
import type { Manifest } from '#/bundle/manifest.ts';
import { readCurrent } from '#/control/trust/repository.ts';
import type { ArtifactId, VersionId } from '#/protocol/ids.ts';
import { agentBuilder } from '#/test/prove/shipped-agent.ts';
import { startWorld, type World } from '#/test/support/control/world.ts';
import { Operator } from '#/test/support/trust/operator.ts';
import { movedForward, stateOf, type HostState } from './host-state.ts';
import { Intruder } from './intruder.ts';
import { enrolAgent, type EnrolledAgent, releaseBundle } from './real-agents.ts';

/** What is written into the audit log when something is refused; the rest is counted by code. */
const REFUSALS = ['access.refused', 'trust.refused', 'gate.deny', 'host.quarantine'];

interface Standing {
  readonly host: HostState;
  readonly roles: ReadonlyMap<string, number>;
  readonly pins: string;
  readonly told: number;
}

/** What runs and what is pinned is as before. Trust may move forward: control signs the time anew every so often, and the host follows. */
function unmoved(before: Standing, after: Standing): void {
  expect(after.host).toMatchObject({ link: before.host.link, digest: before.host.digest });
  expect(after.pins).toBe(before.pins);
  movedForward(before.host, after.host);
  for (const [role, version] of before.roles)
    expect(after.roles.get(role), role).toBeGreaterThanOrEqual(version);
}

export class GuardedControl {
  readonly world: World;
  readonly op: Operator;
  readonly directory: string;
  readonly #server: Intruder;
  readonly #remove: () => void;
  witness!: EnrolledAgent;
  v1!: ArtifactId;

  private constructor(world: World, server: Intruder, remove: () => void) {
    this.world = world;
    this.#server = server;
    this.#remove = remove;
    this.directory = mkdtempSync(join(tmpdir(), 'guarded-control-'));
    this.op = new Operator(this.directory, () => world.control.url, world.adminToken);
  }

  /** Group `web` is pinned to version 1, and an agent of it runs that. `settings`: of the agent, lines of TOML. */
  static async start(settings = ''): Promise<GuardedControl> {
    const server = await Intruder.start(() => world.control.url);
    const world: World = await startWorld({ publicUrl: server.url });
    const builder = agentBuilder(process.env['SWITCHBACK_AGENT'] ?? null);
    const guarded = new GuardedControl(world, server, () => builder.remove());
    await world.group('web');
    await world.group('db');
    guarded.v1 = await releaseBundle(world, server, guarded.directory, 1);
    await world.admin.call('groupPin', {
      params: { group: 'web' },
      body: { artifactId: guarded.v1, reason: 'first' },
    });
    guarded.witness = await enrolAgent(world, server, await builder.program(), 'web', settings);
    await guarded.runs(guarded.v1);
    return guarded;
  }

  /** Waits until the witness reports that it runs this. */
  async runs(version: VersionId): Promise<void> {
    await this.witness.agent.until(() =>
      this.reports.some(({ running }) => running === version) ? true : null,
    );
  }

  /** What the witness reported, in order. */
  get reports(): Intruder['reports'] {
    return this.#server.reports;
  }

  /** Releases version `1.<number>.0` of class web. */
  release(number: number, changes: Partial<Manifest> = {}): Promise<ArtifactId> {
    return releaseBundle(this.world, this.#server, this.directory, number, changes);
  }

  /** The address that hosts know and sign for. */
  get publicUrl(): string {
    return this.#server.url;
  }

  /** The world as hosts see it. */
  get atPublicUrl(): World {
    const { world } = this;
    return { ...world, control: { ...world.control, url: this.publicUrl } } as World;
  }

  /** As refuses, for what is refused before control hears of it: whoever runs the command is told. */
  async refusesLocally(code: string, attack: () => Promise<unknown>): Promise<void> {
    const before = await this.#standing(code);
    expect(await attack()).toBe(code);
    const after = await this.#standing(code);
    unmoved(before, after);
    expect(after.told, 'nothing was asked of control').toBe(before.told);
  }

  /** The attack gives the code that it got. */
  async refuses(code: string, attack: () => Promise<unknown>): Promise<void> {
    const before = await this.#standing(code);
    expect(await attack()).toBe(code);
    await this.world.control.engine.settled();
    const after = await this.#standing(code);
    unmoved(before, after);
    expect(after.told, `${code} is told`).toBeGreaterThan(before.told);
  }

  async #standing(code: string): Promise<Standing> {
    const { fleet } = this.world.control.engine;
    const read = (name: string): Uint8Array | null => fleet.trust.get(name) ?? null;
    const { snapshot } = readCurrent({ store: { read }, keys: [], nowMs: 0 });
    const roles = Object.entries(snapshot?.meta ?? {}).map(([file, { version }]) => [
      file,
      version,
    ]);
    const pins = await Promise.all(
      ['web', 'db'].map((group) =>
        this.world.admin.call('groupShow', { params: { group: group as never } }),
      ),
    );
    return {
      host: await stateOf(this.witness.agent, this.witness.id),
      roles: new Map(roles as [string, number][]),
      pins: JSON.stringify(pins.map(({ pin }) => pin)),
      told: (await this.#counted(code)) + (await this.#logged()),
    };
  }

  /** Refusals of this code that control counted. */
  async #counted(code: string): Promise<number> {
    const answer = await fetch(`${this.world.control.url}/metrics`, {
      headers: { authorization: `Bearer ${this.world.adminToken}` },
    });
    const lines = (await answer.text()).split('\n');
    const mine = lines.filter(
      (line) => line.startsWith('switchback_refusals_total') && line.includes(`code="${code}"`),
    );
    return mine.reduce((sum, line) => sum + Number(line.split(' ').at(-1)), 0);
  }

  async #logged(): Promise<number> {
    const { items } = await this.world.admin.call('audit', { query: { limit: '1000' } });
    return items.filter(({ type }) => REFUSALS.includes(type)).length;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.witness?.agent.stop();
    if (this.witness !== undefined)
      rmSync(this.witness.agent.directory, { recursive: true, force: true });
    await this.#server.stop();
    await this.world[Symbol.asyncDispose]();
    rmSync(this.directory, { recursive: true, force: true });
    this.#remove();
  }
}

/** The code of a refusal; `accepted` for what was not refused. */
export async function codeOf(work: Promise<unknown>): Promise<string> {
  try {
    await work;
    return 'accepted';
  } catch (error) {
    return (error as { code?: string }).code ?? String(error);
  }
}

/** The same of an answer over HTTP. */
export async function codeIn(answer: Response | Promise<Response>): Promise<string> {
  const got = await answer;
  const body = (await got.json()) as { code?: string };
  return got.ok ? 'accepted' : (body.code ?? `status ${got.status}`);
}
