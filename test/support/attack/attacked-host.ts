/**
 * A host under attack: the shipped agent as a process, enrolled at a control that a test owns, with version 1 running. Each
 * attack begins from the same disk and the same repository, and is held to the four things that every case of the list asks
 * for: what is refused with which code, that what runs is what ran, that nothing remembered went back, that control was told.
 */
import { cpSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect } from 'vitest';
import { MANIFEST_PAYLOAD_TYPE, signEnvelope } from '#/bundle/dsse.ts';
import { bytesOfHex } from '#/bundle/keys.ts';
import type { Manifest } from '#/bundle/manifest.ts';
import type { TrustMemory } from '#/bundle/trust/resolve.ts';
import { addRelease, setFloors } from '#/control/trust/targets.ts';
import type { ArtifactRef, DesiredDocument, ReportDocument } from '#/protocol/documents.ts';
import { type ConfigId, type HostId, type VersionId, versionIdOf } from '#/protocol/ids.ts';
import { agentBuilder } from '#/test/prove/shipped-agent.ts';
import { craftBundle, type Crafted, fileEntry } from '#/test/support/install/crafted-bundle.ts';
import { treeDigest } from '#/test/support/lone-host/lone-host.ts';
import { assignmentOf, TrustWorld } from '#/test/support/trust-world.ts';
import { AgentProcess } from './agent-process.ts';
import { Forge } from './forge.ts';
import { memoryOf, movedForward, stateOf, versionIn } from './host-state.ts';
import { HostileControl } from './hostile-control.ts';

/** How an attack has to end. */
export type Ending =
  /** The attempt ends refused or aborted, with this code, and control is told so. */
  | { readonly refused: string }
  /** Nothing can be looked at; the reports say why. */
  | { readonly told: string }
  /** The host goes on to the version that is rightly pinned; a notice, where there is something to notice. */
  | { readonly taken: true; readonly notice?: string; readonly line?: string }
  /** It is tried, fails with this code, and the host goes back. */
  | { readonly rolledBack: string }
  /** There is nothing that the host may do, and it says what it noticed. */
  | { readonly stays: true; readonly notice: string };

export interface Attack {
  /** What is done to the repository, the wire or the disk, once version 2 is rightly pinned and the agent is down. */
  readonly attack: (host: AttackedHost) => void | Promise<void>;
  readonly ends: Ending;
  /** Keys of the online roles were replaced: their files may begin at 1 again (A19). */
  readonly keysReplaced?: boolean;
  /** What surrounds the agent when it starts. */
  readonly env?: (host: AttackedHost) => Readonly<Record<string, string>>;
  /** What starts the agent, in the place of Node. */
  readonly launcher?: (host: AttackedHost) => string;
  /** Milliseconds by which the clock of the agent is off. */
  readonly clockOffMs?: number;
  /** Beside the end of the attempt: what there must be before the agent is stopped. */
  readonly until?: (host: AttackedHost) => boolean | Promise<boolean>;
  /** Beside the four. */
  readonly also?: (host: AttackedHost) => void | Promise<void>;
}

export interface Beginning {
  /** What the policy says before the host sees anything. */
  readonly prepare?: (world: TrustWorld) => void;
  /** What every pin has that is rightly made. */
  readonly pinned?: (artifact: ArtifactRef, host: AttackedHost) => Partial<DesiredDocument>;
  /** Settings of the agent, lines of TOML. */
  readonly settings?: (host: AttackedHost) => string;
  /** What every manifest says. */
  readonly manifest?: (host: AttackedHost) => Partial<Manifest>;
  readonly tls?: { readonly server: { cert: string; key: string }; readonly caPem: string };
}

export class AttackedHost {
  readonly directory: string;
  readonly agent: AgentProcess;
  readonly #removeProgram: () => void;
  readonly #options: Beginning;
  world: TrustWorld;
  control!: HostileControl;
  id!: HostId;
  v1!: ArtifactRef;
  /** What is rightly pinned, and offered, when an attack begins. Attacks may offer another. */
  v2!: ArtifactRef;
  /** Called again and again while the agent runs: what somebody else on the host does meanwhile. */
  meddle: (() => void) | null = null;
  /** What was published at each step that the host has seen: what can be played back. */
  readonly seen: Map<string, Uint8Array>[] = [];
  /** By artifact, the config set that it is offered with. */
  readonly configs = new Map<string, ConfigId>();
  #files = new Map<string, Uint8Array>();
  #bundles = new Map<string, Uint8Array>();
  #configs = new Map<string, ConfigId>();
  #nowMs = 0;
  /** What the attempt is about where nothing is offered. */
  #about: string | null = null;
  #env: Readonly<Record<string, string>> = {};
  #launcher: string | undefined;
  #log: TrustWorld['log'] = null;

  private constructor(program: string, removeProgram: () => void, options: Beginning) {
    this.#options = options;
    this.directory = mkdtempSync(join(tmpdir(), 'attacked-host-'));
    this.agent = new AgentProcess(program, this.directory);
    this.#removeProgram = removeProgram;
    this.world = new TrustWorld(Date.now());
  }

  static async start(options: Beginning = {}): Promise<AttackedHost> {
    const builder = agentBuilder(process.env['SWITCHBACK_AGENT'] ?? null);
    const host = new AttackedHost(await builder.program(), () => builder.remove(), options);
    try {
      await host.#begin();
    } catch (error) {
      await host[Symbol.asyncDispose]();
      throw error;
    }
    return host;
  }

  get disk(): string {
    return this.agent.disk;
  }
  get stateDirectory(): string {
    return this.agent.stateDirectory;
  }
  get slots(): string {
    return this.agent.slots;
  }
  async #begin(): Promise<void> {
    const { prepare, tls, settings } = this.#options;
    this.control = await HostileControl.start(() => this.world, tls?.server);
    this.agent.configure(settings?.(this));
    await this.agent.command('enrol', this.control.invitation(tls?.caPem));
    this.id = this.#identity();
    // Every role has a version behind it that the host has seen, so that each can be played back.
    prepare?.(this.world);
    this.v1 = await this.release(1);
    this.pin(this.v1, 1);
    this.world.publish(setFloors(this.world.repository(), { web: 1 }));
    this.seen.push(new Map(this.world.files));
    this.offer(this.v1);
    await this.run(undefined, () => this.#eventOf(this.versionOf(this.v1), ['confirmed']));
    // The same once more: a newer pin of what runs, and a floor.
    this.world.publish(setFloors(this.world.repository(), { web: 1, db: 1 }));
    this.pin(this.v1, 2);
    this.seen.push(new Map(this.world.files));
    this.v2 = await this.release(2);
    this.seen.push(new Map(this.world.files));
    this.pin(this.v2, 3, { waves: [{ percent: 100, notBefore: FAR }] });
    this.seen.push(new Map(this.world.files));
    // Looked at, and not open yet: what is published so far is known to the host, and version 1 runs on.
    this.offer(this.v2);
    await this.run(undefined, async () => ((await this.memory()).pins[PIN] === 3 ? true : null));
    this.pin(this.v2, 4);
    this.#files = new Map(this.world.files);
    this.#bundles = new Map(this.control.bundles);
    this.#configs = new Map(this.configs);
    this.#nowMs = this.world.nowMs;
    this.#log = this.world.log;
    cpSync(this.disk, `${this.disk}.begin`, { recursive: true, verbatimSymlinks: true });
  }

  #identity(): HostId {
    const enrolled = this.control.stub.seen.find(({ path }) => path === '/agent/v1/enroll');
    if (enrolled?.signedBy === null || enrolled === undefined) throw new Error('did not enrol');
    return `h-${enrolled.signedBy.slice(0, 32)}` as HostId;
  }

  /** The public key that secrets of this host are sealed to, as it was enrolled. */
  get sealKey(): Uint8Array {
    const enrolled = this.control.stub.seen.find(({ path }) => path === '/agent/v1/enroll');
    const { sealKey } = JSON.parse(enrolled?.body ?? '{}') as { sealKey?: string };
    return bytesOfHex(sealKey ?? '', 32) ?? new Uint8Array();
  }

  /** Makes a bundle, also one that no builder would make, has it signed and listed, and serves it. */
  async release(
    number: number,
    changes: Partial<Manifest> = {},
    crafted: Partial<Crafted> = {},
  ): Promise<ArtifactRef> {
    const path = join(this.directory, 'a.bundle');
    const [entry, bytes] = fileEntry('app', `version ${number}\n`.repeat(3000));
    const contents = new Map(entry.kind === 'file' ? [[entry.sha256, bytes] as const] : []);
    const { manifestBytes, artifactId } = await craftBundle(path, {
      entries: [entry],
      contents,
      ...crafted,
      manifest: (manifest) => {
        const trial = { ...manifest.trial, deadlineMs: 600_000, maxBoots: 3 };
        const own = { ...manifest, version: `1.${number}.0`, release: number, trial };
        const all = { ...(crafted.manifest?.(own) ?? own), ...this.#options.manifest?.(this) };
        return { ...all, ...changes };
      },
    });
    this.control.bundles.set(artifactId, readFileSync(path));
    const envelope = signEnvelope(MANIFEST_PAYLOAD_TYPE, manifestBytes, [
      this.world.key('release'),
    ]);
    const { ref, files } = addRelease(this.world.repository(), manifestBytes, envelope);
    this.world.publish(files);
    return ref;
  }

  /** The order to go back to the version before. */
  rollBack(previous: ArtifactRef): void {
    this.offer(previous);
    const { assignment } = this.control;
    if (assignment !== null)
      this.control.assignment = { ...assignment, offer: null, rollbackGeneration: 1 };
    this.#about = this.versionOf(previous);
  }

  /** Releases what no builder would make, has it pinned rightly, and offers it. */
  async pinned(changes: Partial<Manifest>, crafted: Partial<Crafted> = {}): Promise<ArtifactRef> {
    const ref = await this.release(3, changes, crafted);
    this.pin(ref, 5);
    this.offer(ref);
    return ref;
  }

  /** Pins rightly. */
  pin(artifact: ArtifactRef, seq: number, changes: Partial<DesiredDocument> = {}): void {
    this.world.pin(artifact, seq, { ...this.#options.pinned?.(artifact, this), ...changes });
  }

  get forge(): Forge {
    return new Forge(this.world);
  }

  /** What control offers from now on, and where it says that the bundle is. */
  offer(
    artifact: ArtifactRef,
    sources: readonly string[] = [this.control.bundleUrl(artifact.artifactId)],
  ): void {
    const assignment = assignmentOf(artifact);
    const configId = this.configs.get(artifact.artifactId);
    const named = { sources: [...sources], ...(configId === undefined ? {} : { configId }) };
    const offer = assignment.offer === null ? null : { ...assignment.offer, ...named };
    this.control.assignment = { ...assignment, offer };
  }

  /** What a host reports that runs this artifact, with the config set that it is offered with. */
  versionOf({ artifactId }: Pick<ArtifactRef, 'artifactId'>): VersionId {
    return versionIdOf(artifactId, this.configs.get(artifactId));
  }

  /** The version that is offered; empty where none is. */
  get #offered(): string {
    const offer = this.control.assignment?.offer ?? null;
    return offer === null ? '' : versionIdOf(offer.artifactId, offer.configId);
  }

  /** Runs the agent until `isDone` answers; then ends it as a service manager would. */
  async run<T>(
    clockOffMs: number | undefined,
    isDone: () => Promise<T | null> | T | null,
  ): Promise<T> {
    const launcher = this.#launcher === undefined ? {} : { launcher: this.#launcher };
    this.agent.start({ clockOffMs: clockOffMs ?? 0, env: this.#env, ...launcher });
    try {
      return await this.agent.until(isDone, {
        meanwhile: this.meddle,
        told: () => JSON.stringify(this.control.reports.slice(-3)),
      });
    } finally {
      await this.agent.stop();
    }
  }

  /** The event of an attempt at this version that ended in one of these phases. */
  #eventOf(version: string, phases: readonly string[]): ReportDocument['events'][number] | null {
    const events = this.control.reports.flatMap((report) => report.events);
    return (
      events.find(({ artifactId, phase }) => artifactId === version && phases.includes(phase)) ??
      null
    );
  }

  /** The event with which the attempt at what is offered ended, as control was told it. */
  get ended(): ReportDocument['events'][number] | null {
    return this.#eventOf(this.#offered, TERMINAL);
  }

  #fact(name: string): unknown {
    return this.control.reports
      .map(({ facts }) => facts?.[name])
      .findLast((value) => value !== '' && value !== undefined);
  }

  /** Version of a role in the cache of the host. */
  cached(role: string): number {
    return versionIn(readFileSync(join(this.stateDirectory, 'trust', `role.${role}.json`)));
  }

  memory(): Promise<TrustMemory> {
    return memoryOf(this.agent, this.id);
  }

  /** One attack from the common beginning. */
  async suffers(attempted: Attack): Promise<void> {
    const { attack, ends, keysReplaced, clockOffMs, env, launcher, until, also } = attempted;
    await this.#restore();
    await attack(this);
    this.#env = env?.(this) ?? {};
    this.#launcher = launcher?.(this);
    const before = await stateOf(this.agent, this.id);
    const offered = this.#about ?? this.#offered;
    await this.run(clockOffMs, async () =>
      this.#hasEnded(ends, offered) && (await until?.(this)) !== false ? true : null,
    );
    const after = await stateOf(this.agent, this.id);
    // 1 and 4: the code, as control was told it, in a report that the key of the host signed.
    const event = this.#eventOf(offered, TERMINAL);
    if ('refused' in ends) expect(event?.code, event?.message).toBe(ends.refused);
    if ('rolledBack' in ends)
      expect([event?.phase, event?.code]).toEqual(['rolled-back', ends.rolledBack]);
    if ('told' in ends) {
      expect(this.#fact('trustCode')).toBe(ends.told);
      expect(event).toBeNull();
    }
    if ('notice' in ends && ends.notice !== undefined)
      expect(this.#fact('trustNotice')).toBe(ends.notice);
    if ('line' in ends && ends.line !== undefined)
      expect(this.#fact('controlCode')).toBe(ends.line);
    if ('stays' in ends) {
      expect(event).toBeNull();
      expect(this.#fact('trustCode')).toBeUndefined();
    }
    // 2: what runs.
    if ('taken' in ends) {
      expect(event?.phase).toBe('confirmed');
      expect(after.link).toBe(`releases/${offered}`);
      expect(await treeDigest(join(this.slots, before.link))).toBe(before.digest);
    } else {
      expect(after.link).toBe(before.link);
      expect(after.digest).toBe(before.digest);
      expect(this.control.reports.at(-1)?.running).toBe(before.link.replace('releases/', ''));
    }
    // 3: nothing that is remembered went back.
    movedForward(before, after, keysReplaced);
    await also?.(this);
  }

  async #restore(): Promise<void> {
    rmSync(this.disk, { recursive: true, force: true });
    cpSync(`${this.disk}.begin`, this.disk, { recursive: true, verbatimSymlinks: true });
    this.world.files.clear();
    for (const [name, bytes] of this.#files) this.world.files.set(name, bytes);
    this.control.bundles.clear();
    for (const [id, bytes] of this.#bundles) this.control.bundles.set(id, bytes);
    this.configs.clear();
    for (const [id, config] of this.#configs) this.configs.set(id, config);
    this.control.reports.length = 0;
    this.control.interfere = () => false;
    this.control.changeToken = (body) => body;
    this.meddle = null;
    this.#env = {};
    this.#launcher = undefined;
    this.#about = null;
    this.world.moreKeys.length = 0;
    this.world.nowMs = this.#nowMs;
    this.world.log = this.#log;
    this.offer(this.v2);
  }

  #hasEnded(ends: Ending, offered: string): boolean {
    const event = this.#eventOf(offered, TERMINAL);
    if ('told' in ends) return event !== null || this.#fact('trustCode') !== undefined;
    const noticed =
      (!('notice' in ends) || this.#fact('trustNotice') !== undefined) &&
      (!('line' in ends) || this.#fact('controlCode') !== undefined);
    return noticed && (event !== null || 'stays' in ends);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.agent.stop();
    await this.control?.stub.close();
    rmSync(this.directory, { recursive: true, force: true });
    this.#removeProgram();
  }
}

const TERMINAL = ['refused', 'aborted', 'rolled-back', 'confirmed', 'needs-attention'];
const PIN = 'groups/blue/desired.json';
/** 2100: no wave that opens then is open. */
const FAR = 4_102_444_800;
