/** The agent's configuration: drop-in files → one checked value, with the origin of each key (docs/reference/config.md). */
import { join } from 'node:path';
import * as v from 'valibot';
import { healthCheck, type HealthCheck } from '#/bundle/manifest.ts';
import { Problem } from '#/protocol/errors.ts';
import {
  CONFIG_DIRECTORIES,
  mergeFragments,
  readFragments,
  snake,
  type Fragment,
  type Origin,
  type Plain,
} from './config/fragments.ts';
import { settingsSchema, type CheckSetting, type Settings } from './config/schema.ts';

export type { CheckSetting, Settings, WindowSetting } from './config/schema.ts';

export interface LoadedSettings {
  readonly settings: Settings;
  /** Dotted snake_case key → the file it stands in; keys that are not here have their default. */
  readonly origins: ReadonlyMap<string, Origin>;
  /** Files in the order in which they counted. */
  readonly files: readonly string[];
}

/**
 * Loads the settings from `source` (a file or a directory), or from the three directories of drop-ins when it is null.
 * Anything wrong is E_CONFIG: the message has file, key, and what is accepted.
 */
export function loadSettings(
  source: string | null = null,
  directories: readonly string[] = CONFIG_DIRECTORIES,
): LoadedSettings {
  return settingsFrom(readFragments(source, directories));
}

/** The settings of these texts; what `loadSettings` does after reading. */
export function settingsFrom(fragments: readonly Fragment[]): LoadedSettings {
  const { values, origins } = mergeFragments(fragments);
  for (const section of Object.keys(settingsSchema.entries)) values[section] ??= {};
  const result = v.safeParse(settingsSchema, values, { abortEarly: true });
  if (!result.success) throw problemOf(result.issues[0], origins);
  const { output } = result;
  const socket = output.local.socket ?? join(output.state.runDirectory, 'agent.sock');
  const settings = { ...output, local: { ...output.local, socket } };
  checkAcross(settings, origins);
  return { settings, origins, files: fragments.map((fragment) => fragment.file) };
}

/** The defaults alone, for tests and for hosts without any file. */
export const defaultSettings = (): Settings => settingsFrom([]).settings;

function problemOf(issue: v.BaseIssue<unknown>, origins: ReadonlyMap<string, Origin>): Problem {
  const path = (issue.path ?? []).map((item) => String(item.key));
  const dotted = path.map(snake).join('.');
  const file = originOf(dotted, origins);
  const message = issue.message.replace(/^Invalid (?:key|type|value|[a-z ]+): /, '');
  return new Problem('E_CONFIG', `${file}: ${dotted}: ${lowerFirst(message)}`, {
    file,
    key: dotted,
  });
}

const lowerFirst = (text: string): string => text.slice(0, 1).toLowerCase() + text.slice(1);

function originOf(dotted: string, origins: ReadonlyMap<string, Origin>): string {
  let key = dotted;
  while (key !== '') {
    const origin = origins.get(key);
    if (origin !== undefined) return origin.file;
    key = key.slice(0, Math.max(0, key.lastIndexOf('.')));
  }
  return '(defaults)';
}

/** Rules that need more than one key. */
function checkAcross(settings: Settings, origins: ReadonlyMap<string, Origin>): void {
  const refuse = (key: string, message: string): never => {
    const file = originOf(key, origins);
    throw new Problem('E_CONFIG', `${file}: ${key}: ${message}`, { file, key });
  };
  const { poll, activation, guard, slots, boot } = settings;
  if (slots.kind === 'partition' && boot.loader === 'custom' && boot.program === undefined)
    refuse('boot.program', 'is needed with loader "custom"');
  if (poll.minIntervalMs > poll.maxIntervalMs)
    refuse(
      'poll.min_interval_ms',
      `${poll.minIntervalMs} is above max_interval_ms ${poll.maxIntervalMs}`,
    );
  if (guard.heartbeatLostMs < 3 * guard.heartbeatIntervalMs)
    refuse('guard.heartbeat_lost_ms', 'expected at least three times heartbeat_interval_ms');
  if (activation.kind === 'units' && activation.units === undefined)
    refuse('activation.units', 'is needed with kind "units"');
  if (
    (activation.kind === 'command' || activation.kind === 'process') &&
    activation.start === undefined
  )
    refuse('activation.start', `is needed with kind "${activation.kind}"`);
  for (const [window, { zone }] of Object.entries(settings.window)) {
    if (!isZone(zone)) refuse(`window.${window}.zone`, `"${zone}" is not a known time zone`);
  }
  for (const [check, setting] of Object.entries(settings.check)) {
    const parsed = v.safeParse(healthCheck, checkFrom(check, setting, settings), {
      abortEarly: true,
    });
    if (!parsed.success) {
      const issue = parsed.issues[0];
      const field = (issue.path ?? []).map((item) => snake(String(item.key))).join('.');
      refuse(`check.${check}${field === '' ? '' : `.${field}`}`, lowerFirst(issue.message));
    }
  }
}

function isZone(zone: string): boolean {
  try {
    new Intl.DateTimeFormat('en', { timeZone: zone });
    return true;
  } catch {
    return false;
  }
}

function checkFrom(check: string, setting: CheckSetting, settings: Settings): Plain {
  const { enabled: _enabled, ...own } = setting;
  const byKind: Plain =
    own.kind === 'http' ? { status: 200 } : own.kind === 'tcp' ? { host: '127.0.0.1' } : {};
  return { name: check, ...settings.probe, ...byKind, ...own };
}

/** The host's own health checks, with the defaults of `[probe]`, in the order of their names. */
export function localChecks(settings: Settings): readonly HealthCheck[] {
  return Object.keys(settings.check)
    .sort()
    .flatMap((check) => {
      const setting = settings.check[check];
      if (setting === undefined || !setting.enabled) return [];
      return [v.parse(healthCheck, checkFrom(check, setting, settings))];
    });
}
