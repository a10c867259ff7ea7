/**
 * `switchback trust rotate | harden | renew | revoke | group | class | floor | withdraw | pin | release`: changes of the
 * repository. Each is made here, over what control publishes; it is published at once when the keys at hand and those of
 * control are enough, or written to a file that others sign.
 */
import { resolve } from 'node:path';
import { hexOf } from '#/bundle/keys.ts';
import { topLevelRoles } from '#/bundle/trust/role.ts';
import { parseWhole } from '#/control/cli/arguments.ts';
import { openBundle } from '#/control/cli/bundle/read.ts';
import type { CliContext } from '#/control/cli/context.ts';
import { addCommand, type DescribedCommand } from '#/control/cli/describe.ts';
import { writeNew } from '#/control/cli/files.ts';
import { findRelease } from '#/control/cli/lookup.ts';
import { harmless } from '#/control/cli/render/text.ts';
import { openSession, type Session } from '#/control/cli/session.ts';
import { proposalLines } from '#/control/cli/trust/proposal-text.ts';
import { overPublished } from '#/control/cli/trust/published.ts';
import { publicKeys, roleKeys, secretKeys } from '#/control/cli/trust/role-keys.ts';
import { addClass, addGroup, addScope, type RoleKeys } from '#/control/trust/delegations.ts';
import { encodeProposal, missingSignatures, propose } from '#/control/trust/proposal.ts';
import {
  type HeldKey,
  publish,
  readCurrent,
  readRoleDocument,
  type Repository,
  type RepositoryFile,
} from '#/control/trust/repository.ts';
import { renewRoot, revokeKey, rotateRole } from '#/control/trust/rotation.ts';
import { addRelease, revoke, setFloors } from '#/control/trust/targets.ts';
import { isProblem, Problem } from '#/protocol/errors.ts';
import type { Proposal } from '#/protocol/proposal.ts';

type Change = (repository: Repository) => readonly RepositoryFile[];

export interface ChangeFlags {
  readonly key?: readonly string[];
  readonly out?: string;
  readonly reason: string;
}
interface KeyFlags extends ChangeFlags {
  readonly to: readonly string[];
  readonly threshold?: number;
}

/** What such a command prints as JSON. */
export const changeJson =
  '`{documents: [{role, version}]}` when published, `{path, missing: [{role, missing}]}` with --out';

/** Adds every command of the family that changes the repository. */
export function addTrustChanges(family: DescribedCommand, context: CliContext): void {
  addKeyChanges(family, context);
  addPolicyChanges(family, context);
  addSignedRelease(family, context);
}

/** A command that changes the repository, with the flags that all of them take. */
export function changing(
  family: DescribedCommand,
  name: string,
  description: string,
  example: string,
): DescribedCommand {
  const command = withChangeFlags(addCommand(family, name, description));
  command.explain([`switchback trust ${name} ${example}`], changeJson);
  return command;
}

/** The flags of every command that changes the repository. */
export function withChangeFlags(command: DescribedCommand): DescribedCommand {
  command
    .requiredOption('--reason <text>', 'why; everybody will see it')
    .option('--key <file...>', 'key files that sign it here and now')
    .option('--out <file>', 'write it to a file for others to sign, instead of publishing it');
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

const adders = { group: addGroup, class: addClass, scope: addScope };

function addKeyChanges(family: DescribedCommand, context: CliContext): void {
  const rotate = takingKeys(
    changing(
      family,
      'rotate',
      'Give a role other keys. Hosts follow by themselves.',
      'timestamp --to new.json --key root.json --reason "yearly"',
    ),
  ).argument(
    '<role>',
    'root, targets, snapshot, timestamp, policy, img-<class>, grp-<group>, cfg-<scope>',
  );
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
    ['scope', 'Name who may sign the config sets of a scope.'],
  ] as const) {
    const add = takingKeys(
      changing(family, name, what, 'web --to ann.json bob.json --key targets.json --reason "new"'),
    ).argument('<name>', `the ${name}`);
    add.action(async (named: string) => {
      const to = await keysOf(context, add.opts<KeyFlags>());
      await run(context, add, (repository) => adders[name](repository, named, to));
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

/**
 * Makes the change: published when the keys at hand are enough, or written to a file. `also`: keys that sign where none are
 * named.
 */
export async function run(
  context: CliContext,
  command: DescribedCommand,
  change: Change,
  also: readonly HeldKey[] = [],
): Promise<void> {
  const session = openSession(context, command);
  const flags = command.opts<ChangeFlags>();
  const given = await secretKeys(context.cwd, flags.key ?? []);
  const keys = given.length > 0 ? given : also;
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
