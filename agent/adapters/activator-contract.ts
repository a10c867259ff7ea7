/** What the ways of starting a version have in common. */
import type { Activation, Manifest } from '#/bundle/manifest.ts';
import type { VersionId } from '#/protocol/ids.ts';
import type { Settings } from '#/agent/config.ts';
import type { Facts, FilePort, SlotId } from '#/agent/ports.ts';
import type { Exec } from './exec.ts';
import type { StartRecipe } from './guard-files.ts';
import { CONFIG_VARIABLE } from './secrets.ts';
import type { SupervisorEvent } from './supervisor.ts';

/** A version with all that is needed to start it. */
export interface Version {
  readonly slot: SlotId;
  readonly artifactId: VersionId;
  /** Absolute directory of the version. */
  readonly path: string;
  readonly activation: Activation;
  /** Directory of the entries of its config set; null for a version without one. */
  readonly configPath: string | null;
}

/** What was started last. */
export interface ActiveRecord extends Version {
  readonly v: 1;
  readonly bootId: string;
  /** units: the invocation of each unit that was started. */
  readonly invocations: Readonly<Record<string, string>>;
}

/** One way of starting versions. */
export interface Starter {
  /** The version runs when this returns; `before` is what was started last. Returns invocations to remember. */
  start(version: Version, before: ActiveRecord | null): Promise<Readonly<Record<string, string>>>;
  /** How the guard starts it when the agent cannot. */
  recipe(version: Version): StartRecipe;
  /** Nothing of it runs when this returns. */
  stop(before: ActiveRecord): Promise<void>;
  /** Versions that run now. */
  running(live: Version | null, before: ActiveRecord | null): Promise<Facts['active']>;
}

export interface ActivatorOptions {
  readonly settings: Settings['activation'];
  readonly runDirectory: string;
  readonly stateDirectory: string;
  /** Absolute directory of a version, and the link to the live one. */
  readonly slotPath: (slot: SlotId) => string;
  readonly currentLink: string;
  /** Directory of the entries of a version's config set, whether or not it is there; null for a version without one. */
  readonly configPath: (version: VersionId) => string | null;
  /** The live version with its manifest, read from the slot; null before the first install. */
  readonly live: () => Promise<{
    readonly slot: SlotId;
    readonly artifactId: VersionId;
    readonly manifest: Manifest;
  } | null>;
  readonly exec: Exec;
  readonly files: FilePort;
  /** `guard.heartbeat_lost_ms`, for the guard. */
  readonly heartbeatLostMs: number;
  readonly bootId: string;
  readonly onEvent: (event: SupervisorEvent) => void;
  /** For tests. */
  readonly systemctl?: string;
  readonly rebootWaitMs?: number;
}

/** Replaces `{slot}` in each argument by the directory of the version. */
export function expandSlot(argv: readonly string[], path: string): readonly string[] {
  return argv.map((argument) => argument.replaceAll('{slot}', path));
}

/** Artifacts as the fact `active`. */
export function single(artifacts: readonly string[]): Facts['active'] {
  const distinct = [...new Set(artifacts)];
  if (distinct.length > 1) return 'mixed';
  return (distinct[0] as VersionId | undefined) ?? null;
}

/** The variable by which a program finds the entries of its config set. */
export function configVariable({ configPath }: Version): Readonly<Record<string, string>> {
  return configPath === null ? {} : { [CONFIG_VARIABLE]: configPath };
}
