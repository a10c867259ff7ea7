/**
 * `switchback trust rotate | harden | renew | revoke | group | class | floor | withdraw | pin | release`: changes of the
 * repository. Each is made here, over what control publishes; it is published at once when the keys at hand and those of
 * control are enough, or written to a file that others sign.
 */
import { resolve } from 'node:path';
import { hexOf } from '#/bundle/keys.ts';
import { manifestPath } from '#/bundle/trust/documents.ts';
import { topLevelRoles } from '#/bundle/trust/role.ts';
import { parseMoment, parseWhole } from '#/control/cli/arguments.ts';
import { openBundle } from '#/control/cli/bundle/read.ts';
import type { CliContext } from '#/control/cli/context.ts';
import { addCommand, type DescribedCommand } from '#/control/cli/describe.ts';
import { writeNew } from '#/control/cli/files.ts';
import { findHost, findRelease } from '#/control/cli/lookup.ts';
import { harmless } from '#/control/cli/render/text.ts';
import { openSession, type Session } from '#/control/cli/session.ts';
import { proposalLines } from '#/control/cli/trust/proposal-text.ts';
import { overPublished } from '#/control/cli/trust/published.ts';
import { publicKeys, roleKeys, secretKeys } from '#/control/cli/trust/role-keys.ts';
import { addClass, addGroup, type RoleKeys } from '#/control/trust/delegations.ts';
import { encodeProposal, missingSignatures, propose } from '#/control/trust/proposal.ts';
import {
  publish,
  readCurrent,
  readRoleDocument,
  type Repository,
  type RepositoryFile,
} from '#/control/trust/repository.ts';
import { renewRoot, revokeKey, rotateRole } from '#/control/trust/rotation.ts';
import {
  addRelease,
  revoke,
  setDesired,
  setFloors,
  setHostDesired,
} from '#/control/trust/targets.ts';
import type { Client } from '#/protocol/client.ts';
import { isProblem, Problem } from '#/protocol/errors.ts';
import type { ArtifactRef, DesiredDocument } from '#/protocol/documents.ts';
import type { GroupName, HostId } from '#/protocol/ids.ts';
import type { Proposal } from '#/protocol/proposal.ts';
import type { ReleaseView } from '#/protocol/release.ts';

type Change = (repository: Repository) => readonly RepositoryFile[];

interface ChangeFlags {
  readonly key?: readonly string[];
  readonly out?: string;
  readonly reason: string;
}
interface KeyFlags extends ChangeFlags {
  readonly to: readonly string[];
  readonly threshold?: number;
}

const jsonShape =
  '`{documents: [{role, version}]}` when published, `{path, missing: [{role, missing}]}` with --out';

/** Adds every command of the family that changes the repository. */
export function addTrustChanges(family: DescribedCommand, context: CliContext): void {
  addKeyChanges(family, context);
  addPolicyChanges(family, context);
  addSignedPin(family, context);
  addSignedRelease(family, context);
}

/** A command that changes the repository, with the flags that all of them take. */
export function changing(
  family: DescribedCommand,
  name: string,
  description: string,
  example: string,
): DescribedCommand {
  const command = addCommand(family, name, description);
  command
    .requiredOption('--reason <text>', 'why; everybody will see it')
    .option('--key <file...>', 'key files that sign it here and now')
    .option('--out <file>', 'write it to a file for others to sign, instead of publishing it')
    .explain([`switchback trust ${name} ${example}`], jsonShape);
  return command;
}

function takingKeys(command: DescribedCommand): DescribedCommand {
  command
    .requiredOption('--to <key...>', 'the keys from now on: key files, or public keys as hex')
    .option('--threshold <n>', 'how many of them must sign; else more than half', parseWhole(1));
  return command;
}

async function keysOf(context: CliContext, flags: KeyFlags): Promise<RoleKeys> {
  return roleKeys(await publicKeys(context.cwd, flags.to), flags.threshold);
}

function addKeyChanges(family: DescribedCommand, context: CliContext): void {
  const rotate = takingKeys(
    changing(
      family,
      'rotate',
      'Give a role other keys. Hosts follow by themselves.',
      'timestamp --to new.json --key root.json --reason "yearly"',
    ),
  ).argument('<role>', 'root, targets, snapshot, timestamp, policy, img-<class>, grp-<group>');
  rotate.action(async (role: string) => {
    const to = await keysOf(context, rotate.opts<KeyFlags>());
    await run(context, rotate, (repository) => rotateRole(repository, role, to));
  });
  const harden = takingKeys(
    changing(
      family,
      'harden',
      'Move a role to keys that control does not have. No host is touched.',
      'grp-web --to ann.json bob.json --threshold 2 --out web.proposal --reason "two people"',
    ),
  ).argument('<role>', 'the role; `trust status` says which are not protected');
  harden.action(async (role: string) => {
    const to = await keysOf(context, harden.opts<KeyFlags>());
    await refuseHeld(openSession(context, harden), role, to);
    await run(context, harden, (repository) => rotateRole(repository, role, to));
  });
  const renew = changing(
    family,
    'renew',
    'Sign a role again, unchanged, before its signatures expire.',
    'grp-web --key ann.json --reason "monthly"',
  ).argument('<role>', 'root, targets, or a delegated role');
  renew.action((role: string) => run(context, renew, (repository) => renewed(repository, role)));
  const revokeCommand = changing(
    family,
    'revoke',
    'End a key for ever: signatures by it count for nothing any more.',
    '3f2a… --reason "laptop stolen"',
  ).argument('<keyId>', 'id of the key; roles that need it get other keys first (trust rotate)');
  revokeCommand.action((keyId: string) =>
    run(context, revokeCommand, (repository) => revokeKey(repository, keyId)),
  );
  for (const [name, what] of [
    ['group', 'Name who may pin a group, before it is created.'],
    ['class', 'Name who may release for a class of hosts.'],
  ] as const) {
    const add = takingKeys(
      changing(family, name, what, 'web --to ann.json bob.json --key targets.json --reason "new"'),
    ).argument('<name>', `the ${name}`);
    add.action(async (named: string) => {
      const to = await keysOf(context, add.opts<KeyFlags>());
      await run(context, add, (repository) =>
        name === 'group' ? addGroup(repository, named, to) : addClass(repository, named, to),
      );
    });
  }
}

function addPolicyChanges(family: DescribedCommand, context: CliContext): void {
  const floor = changing(
    family,
    'floor',
    'Raise the lowest release that hosts of a class accept. It never goes down again.',
    'web 42 --reason "CVE"',
  )
    .argument('<class>', 'the class')
    .argument('<release>', 'number of the release', parseWhole(1));
  floor.action((imageClass: string, release: number) =>
    run(context, floor, (repository) => setFloors(repository, { [imageClass]: release })),
  );
  const withdraw = changing(
    family,
    'withdraw',
    'Revoke a release under the policy keys. Hosts refuse it from then on.',
    'web/2.4.0 --key policy-a.json --out withdraw.proposal --reason "loses data"',
  ).argument('<release>', 'version, class/version, or the start of the artifact id');
  withdraw.action(async (text: string) => {
    const { client } = await openSession(context, withdraw).connect();
    const { artifactId } = await findRelease(client, text);
    await run(context, withdraw, (repository) => revoke(repository, { artifacts: [artifactId] }));
  });
}

function addSignedPin(family: DescribedCommand, context: CliContext): void {
  const command = changing(
    family,
    'pin',
    'Pin a group, or one host of it, under keys that control does not have.',
    'web 2.4.0 --key ann.json --out pin.proposal --reason "weekly release"',
  )
    .argument('<group>', 'the group')
    .argument('<release>', 'version, class/version, or the start of the artifact id')
    .option('--host <host>', 'pin this host of the group only')
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
      body: { artifactId: plain.artifact.artifactId, reason: plain.reason },
    });
    const document = verdicts.length === 0 ? plain : { ...plain, verdicts };
    await run(context, command, (repository) =>
      document.host === undefined
        ? setDesired(repository, document)
        : setHostDesired(repository, document),
    );
  });
}

interface PinFlags extends ChangeFlags {
  readonly host?: string;
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
  const before =
    view.current === null || view.current.artifactId === release.artifactId
      ? null
      : await client.call('releaseShow', { params: { artifact: view.current.artifactId } });
  return {
    schema: 'switchback.desired/1',
    group: group as GroupName,
    ...(host === undefined ? {} : { host: host as HostId }),
    seq: view.pinSeq + 1,
    artifact: refOf(release),
    ...(before === null ? {} : { previous: refOf(before) }),
    reason: flags.reason,
    waves: (flags.wave ?? []).map((wave) => waveOf(wave, context.now())),
    ...(flags.expires === undefined
      ? {}
      : { expiresAt: Math.ceil(parseMoment(flags.expires, context.now()) / 1000) }),
  };
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

function addSignedRelease(family: DescribedCommand, context: CliContext): void {
  const command = changing(
    family,
    'release',
    'List a bundle as a release under keys that control does not have; `release import` uploads it.',
    'web-2.4.0.bundle --key release-a.json --out release.proposal --reason "2.4.0"',
  ).argument('<file>', 'the bundle');
  command.action(async (file: string) => {
    await using bundle = await openBundle(resolve(context.cwd, file), null);
    const { manifestBytes, envelope } = bundle;
    await run(
      context,
      command,
      (repository) => addRelease(repository, manifestBytes, envelope).files,
    );
  });
}

/** Signed again under the same keys. */
function renewed(repository: Repository, role: string): readonly RepositoryFile[] {
  if (role === 'root') return renewRoot(repository);
  if (role !== 'targets' && (topLevelRoles as readonly string[]).includes(role))
    throw new Problem('E_USAGE', `control renews ${role} by itself`);
  const document =
    role === 'targets' ? readCurrent(repository).targets : readRoleDocument(repository, role);
  return publish(repository, new Map([[role, document]]), []);
}

/** Refuses keys that control has: the role would not be out of its hands. */
async function refuseHeld(session: Session, role: string, to: RoleKeys): Promise<void> {
  const { client } = await session.connect();
  const { keys } = await client.call('trustKeys', {});
  const held = new Set(keys.map((key) => key.public));
  const ours = to.keys.filter((key) => held.has(hexOf(key.bytes)));
  if (ours.length > 0)
    throw new Problem(
      'E_USAGE',
      `control holds ${ours.map((key) => key.keyId.slice(0, 16)).join(', ')}: ${role} would stay in its hands`,
    );
}

/** Makes the proposal, signs it with the keys given, and publishes it or writes it down. */
/** Makes the change: published when the keys at hand are enough, or written to a file. */
export async function run(
  context: CliContext,
  command: DescribedCommand,
  change: Change,
): Promise<void> {
  const session = openSession(context, command);
  const flags = command.opts<ChangeFlags>();
  const keys = await secretKeys(context.cwd, flags.key ?? []);
  const { client } = await session.connect();
  const proposal = await overPublished(client, (store) =>
    propose({ store, keys, nowMs: context.now() }, flags.reason, change),
  );
  if (flags.out !== undefined) {
    await keep(session, resolve(context.cwd, flags.out), proposal);
    return;
  }
  try {
    const published = await client.call('trustPublish', { body: proposal });
    session.print(published, ({ documents }) =>
      documents.map(({ role, version }) => `${role} is at version ${version}\n`).join(''),
    );
  } catch (error) {
    if (!isProblem(error, 'E_SIGS')) throw error;
    const message = `${error.message}; write it to a file with --out, and let the others sign it`;
    throw new Problem('E_SIGS', message, error.details, { cause: error });
  }
}

/** Writes a proposal, and says what is in it and who must still sign. */
export async function keep(session: Session, path: string, proposal: Proposal): Promise<void> {
  await writeNew(path, encodeProposal(proposal), 0o644);
  const missing = missingSignatures(proposal);
  session.print(
    { path, missing },
    () =>
      `${proposalLines(proposal).join('\n')}\n\n${harmless(path)}\nnext: ${
        missing.length === 0
          ? `switchback trust publish ${path}`
          : `switchback trust sign ${path} --key FILE --out FILE, by those who are missing; control signs with what it holds`
      }\n`,
  );
}
