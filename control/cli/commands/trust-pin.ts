/** `switchback trust pin` and `trust unpin`: pins under keys that control does not have. */
import { configPath, manifestPath } from '#/bundle/trust/documents.ts';
import { parseMoment } from '#/control/cli/arguments.ts';
import type { CliContext } from '#/control/cli/context.ts';
import type { DescribedCommand } from '#/control/cli/describe.ts';
import { findConfig, findHost, findRelease } from '#/control/cli/lookup.ts';
import { openSession } from '#/control/cli/session.ts';
import {
  clearDesired,
  clearHostDesired,
  setDesired,
  setHostDesired,
} from '#/control/trust/targets.ts';
import type { Client } from '#/protocol/client.ts';
import type { ConfigView } from '#/protocol/config-set.ts';
import type { ArtifactRef, ConfigRef, DesiredDocument } from '#/protocol/documents.ts';
import { Problem } from '#/protocol/errors.ts';
import {
  artifactOf,
  configOf,
  type GroupName,
  type HostId,
  type VersionId,
  versionIdOf,
} from '#/protocol/ids.ts';
import type { ReleaseView } from '#/protocol/release.ts';
import { type ChangeFlags, changing, run } from './trust-change.ts';

export function addSignedPin(family: DescribedCommand, context: CliContext): void {
  const command = changing(
    family,
    'pin',
    'Pin a group, or one host of it, under keys that control does not have.',
    'web 2.4.0 --key ann.json --out pin.proposal --reason "weekly release"',
  )
    .argument('<group>', 'the group')
    .argument('<release>', 'version, class/version, or the start of the artifact id')
    .option('--host <host>', 'pin this host of the group only')
    .option(
      '--config-set <config>',
      'the config set that goes with it: its id, its start, or scope/version',
    )
    .option('--expires <when>', 'after this the pin causes no switch: 24h, 7d, 2026-12-01')
    .option(
      '--wave <percent@when...>',
      'no more than this share of the hosts before this moment, whatever control says',
    );
  command.action(async (group: string, text: string) => {
    const { client } = await openSession(context, command).connect();
    const plain = await desiredOf(context, command, client, group, text);
    const { verdicts } = await client.call('groupVerdict', {
      params: { group },
      body: {
        artifactId: plain.artifact.artifactId,
        ...(plain.config === undefined ? {} : { configId: plain.config.configId }),
        reason: plain.reason,
      },
    });
    const document = verdicts.length === 0 ? plain : { ...plain, verdicts };
    await run(context, command, (repository) =>
      document.host === undefined
        ? setDesired(repository, document)
        : setHostDesired(repository, document),
    );
  });
}

/** `switchback trust unpin`: the same the other way. */
export function addSignedUnpin(family: DescribedCommand, context: CliContext): void {
  const command = changing(
    family,
    'unpin',
    'Remove the pin of a group, or of one host of it, under keys that control does not have.',
    'web --host h-3f2a --key ann.json --out unpin.proposal --reason "follows its group again"',
  )
    .argument('<group>', 'the group')
    .option('--host <host>', 'the pin of this host of the group; it follows its group again');
  command.action(async (group: string) => {
    const { host } = command.opts<{ host?: string }>();
    const { client } = await openSession(context, command).connect();
    const id = host === undefined ? null : await findHost(client, host);
    await run(context, command, (repository) => {
      const files =
        id === null ? clearDesired(repository, group) : clearHostDesired(repository, group, id);
      if (files.length > 0) return files;
      throw new Problem('E_NOT_FOUND', `${id ?? group} has no signed pin in group ${group}`);
    });
  });
}

interface PinFlags extends ChangeFlags {
  readonly host?: string;
  readonly configSet?: string;
  readonly expires?: string;
  readonly wave?: readonly string[];
}

async function desiredOf(
  context: CliContext,
  command: DescribedCommand,
  client: Client,
  group: string,
  text: string,
): Promise<DesiredDocument> {
  const flags = command.opts<PinFlags>();
  const release = await findRelease(client, text);
  const view = await client.call('groupShow', { params: { group } });
  const host = flags.host === undefined ? undefined : await findHost(client, flags.host);
  const config = flags.configSet === undefined ? null : await findConfig(client, flags.configSet);
  const version = versionIdOf(release.artifactId, config?.configId);
  const before = await formerOf(client, view.current?.artifactId ?? null, version);
  return {
    schema: 'switchback.desired/1',
    group: group as GroupName,
    ...(host === undefined ? {} : { host: host as HostId }),
    seq: view.pinSeq + 1,
    artifact: refOf(release),
    ...(config === null ? {} : { config: configRefOf(config) }),
    ...before,
    reason: flags.reason,
    waves: (flags.wave ?? []).map((wave) => waveOf(wave, context.now())),
    ...(flags.expires === undefined
      ? {}
      : { expiresAt: Math.ceil(parseMoment(flags.expires, context.now()) / 1000) }),
  };
}

/** What the pin replaces, where that is another version. */
async function formerOf(
  client: Client,
  current: VersionId | null,
  pinned: VersionId,
): Promise<Pick<DesiredDocument, 'previous' | 'previousConfig'>> {
  if (current === null || current === pinned) return {};
  const release = await client.call('releaseShow', { params: { artifact: artifactOf(current) } });
  const configId = configOf(current);
  if (configId === null) return { previous: refOf(release) };
  const { items } = await client.call('configList', {});
  const config = items.find((item) => item.configId === configId);
  // A config set that was dropped can be offered no more, so its version cannot either.
  return config === undefined
    ? {}
    : { previous: refOf(release), previousConfig: configRefOf(config) };
}

function configRefOf({ configId, scope, version }: ConfigView): ConfigRef {
  return { configId, scope, version, path: configPath({ scope, version, configId }) };
}

/** `10@2h`: a tenth of the hosts from two hours on. */
function waveOf(text: string, nowMs: number): DesiredDocument['waves'][number] {
  const match = /^(\d{1,3})%?@(.+)$/.exec(text);
  const percent = Number(match?.[1]);
  if (match?.[2] === undefined || percent > 100)
    throw new Problem('E_USAGE', `'${text}' is no wave: write PERCENT@WHEN, as 10@2h`);
  return { percent, notBefore: Math.ceil(parseMoment(match[2], nowMs) / 1000) };
}

function refOf({ artifactId, class: of, version, release }: ReleaseView): ArtifactRef {
  return {
    artifactId,
    class: of,
    version,
    release,
    path: manifestPath({ class: of, version, artifactId }),
  };
}
