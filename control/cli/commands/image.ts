/** `switchback image …`: disks with two slots that boot, and the next versions of their roots. None of it needs control. */
import { resolve } from 'node:path';
import type { CliContext } from '#/control/cli/context.ts';
import { parseWhole } from '#/control/cli/arguments.ts';
import {
  checkDefinition,
  DEFINITION_MAX_BYTES,
  parseDefinition,
} from '#/control/cli/bundle/definition.ts';
import { addCommand, addFamily, type DescribedCommand } from '#/control/cli/describe.ts';
import { readText } from '#/control/cli/files.ts';
import { type Loader, loaders, parseSize } from '#/control/cli/image/layout.ts';
import {
  type DiskOptions,
  type ImageOptions,
  type MadeImage,
  makeImage,
} from '#/control/cli/image/make.ts';
import { USUAL_PACKAGES } from '#/control/cli/image/root.ts';
import { signingKeys } from '#/control/cli/keys.ts';
import type { Progress } from '#/control/cli/render/progress.ts';
import { renderFields } from '#/control/cli/render/table.ts';
import { formatBytes } from '#/control/cli/render/text.ts';
import { openSession, type Session } from '#/control/cli/session.ts';
import { ownVersion } from './version.ts';
import { Problem } from '#/protocol/errors.ts';

const JOIN_MAX_BYTES = 64 * 1024;

interface RootFlags {
  readonly loader: Loader;
  readonly definition: string;
  readonly root?: string;
  readonly suite: string;
  readonly kernel: string;
  readonly agent?: string;
  readonly include: readonly string[];
  readonly deb: readonly string[];
  readonly files: readonly string[];
  readonly hook: readonly string[];
  readonly bare?: boolean;
  readonly slotSize: number;
  readonly imageOut?: string;
  readonly key?: string;
  readonly setVersion?: string;
  readonly setRelease?: number;
  readonly workers?: number;
  readonly verbose?: boolean;
}
interface DiskFlags {
  readonly out: string;
  readonly bundleOut: string;
  readonly espSize: number;
  readonly dataSize: number;
  readonly join?: string;
}

export function addImageCommands(program: DescribedCommand, context: CliContext): void {
  const family = addFamily(program, 'image', 'VM images with two slots, and their next versions.');
  addBuild(family, context);
  addBundle(family, context);
}

const SHAPE = 'artifactId, class, version, release, imageBytes, bundle, bundleBytes';

function addBuild(family: DescribedCommand, context: CliContext): void {
  const command = addCommand(
    family,
    'build',
    'Make a disk image that boots the first version, and its bundle.',
  );
  rootOptions(command)
    .requiredOption('--out <file>', 'the disk (raw); replaced when it exists')
    .requiredOption(
      '--bundle-out <file>',
      'the bundle of this version: import it, so that control knows what the hosts run',
    )
    .option('--esp-size <size>', 'EFI system partition', parseSize, parseSize('256M'))
    .option('--data-size <size>', 'data partition, mounted at /var', parseSize, parseSize('1G'))
    .option('--join <file>', 'join text for the first start: for the disk of one host')
    .explain(
      [
        'switchback image build --definition os.toml --agent switchback-agent_*.deb --out os.raw --bundle-out os-1.bundle',
        'switchback image build --definition os.toml --agent agent.deb --loader systemd-boot --include openssh-server --files ./overlay --out os.raw --bundle-out os-1.bundle',
      ],
      `\`{disk, loader, ${SHAPE}}\``,
    )
    .action(async () => {
      const session = openSession(context, command);
      const flags = command.opts<RootFlags & DiskFlags>();
      let progress: Progress | null = null;
      const disk: DiskOptions = {
        out: resolve(context.cwd, flags.out),
        loader: flags.loader,
        espBytes: flags.espSize,
        dataBytes: flags.dataSize,
        join:
          flags.join === undefined
            ? null
            : await readText(resolve(context.cwd, flags.join), JOIN_MAX_BYTES),
        onBytes: (doneBytes, totalBytes) => {
          progress ??= session.progress(`write ${flags.out}`, totalBytes);
          progress.update(doneBytes);
        },
      };
      const made = await withImage(session, flags, flags.bundleOut, disk).finally(() =>
        progress?.end(),
      );
      const result = { disk: disk.out, loader: disk.loader, ...summaryOf(made) };
      session.print(result, (found) =>
        renderFields(
          [['disk', `${found.disk}, boots by ${found.loader}`], ...fieldsOf(found)],
          session.style,
        ),
      );
      session.note(`next: switchback release import ${flags.bundleOut}`);
    });
}

function addBundle(family: DescribedCommand, context: CliContext): void {
  const command = addCommand(
    family,
    'bundle',
    'Make the next version of the root, and its bundle.',
  );
  rootOptions(command)
    .requiredOption('--out <file>', 'the bundle; replaced when it exists')
    .explain(
      [
        'switchback image bundle --definition os.toml --set-version 2.0.0 --set-release 2 --agent agent.deb --out os-2.bundle',
        'switchback image bundle --definition os.toml --root ./my-debian-root --out os-2.bundle',
      ],
      `\`{${SHAPE}}\``,
    )
    .action(async () => {
      const session = openSession(context, command);
      const flags = command.opts<RootFlags & { readonly out: string }>();
      const made = await withImage(session, flags, flags.out, null);
      session.print(summaryOf(made), (found) => renderFields(fieldsOf(found), session.style));
      session.note(`next: switchback release import ${flags.out}`);
    });
}

function rootOptions(command: DescribedCommand): DescribedCommand {
  return command
    .requiredOption('--definition <file>', 'what the release is: TOML or JSON, without payloads')
    .option('--agent <deb>', 'package of the agent; not needed when the root has it')
    .option('--root <path>', 'start from this directory or tar archive instead of mmdebstrap')
    .option('--suite <name>', 'Debian’s release', 'bookworm')
    .option(
      '--kernel <package>',
      'kernel; one with i6300esb rescues a hung VM on QEMU',
      'linux-image-cloud-amd64',
    )
    .option(
      '--include <packages>',
      'more packages of Debian, with commas; may be repeated',
      words,
      [],
    )
    .option('--bare', `without ${USUAL_PACKAGES.join(', ')}`)
    .option('--deb <file>', 'a package of your own; may be repeated', collect, [])
    .option('--files <dir>', 'laid over the root; may be repeated', collect, [])
    .option(
      '--hook <program>',
      'gets the path of the root as argument; may be repeated',
      collect,
      [],
    )
    .option('--loader <name>', `boot loader: ${loaders.join(' or ')}`, parseLoader, 'grub')
    .option('--slot-size <size>', 'size of each root partition', parseSize, parseSize('1G'))
    .option('--image-out <file>', 'keep the image of the root too')
    .option('--key <file>', 'release keys to sign with; without it those of the settings file')
    .option('--set-version <text>', 'instead of the version in the definition')
    .option('--set-release <n>', 'instead of the release number in the definition', parseWhole(1))
    .option('--workers <n>', 'compressing threads; all cores unless given', parseWhole(1))
    .option('--verbose', 'show what the programs say');
}

async function withImage(
  session: Session,
  flags: RootFlags,
  bundleOut: string,
  disk: DiskOptions | null,
): Promise<MadeImage> {
  const { context } = session;
  const at = (path: string): string => resolve(context.cwd, path);
  const path = at(flags.definition);
  const parsed = parseDefinition(await readText(path, DEFINITION_MAX_BYTES), path);
  const definition = checkDefinition({
    ...parsed,
    ...(flags.setVersion === undefined ? {} : { version: flags.setVersion }),
    ...(flags.setRelease === undefined ? {} : { release: flags.setRelease }),
  });
  const keys = await signingKeys(session, flags.key);
  const sourceDateEpoch = epochOf(context);
  let progress: Progress | null = null;
  const options: ImageOptions = {
    root: {
      suite: flags.suite,
      from: flags.root === undefined ? null : at(flags.root),
      kernel: flags.kernel,
      loader: flags.loader,
      include: [...(flags.bare === true ? [] : USUAL_PACKAGES), ...flags.include],
      packages: [...(flags.agent === undefined ? [] : [flags.agent]), ...flags.deb].map(at),
      files: flags.files.map(at),
      hooks: flags.hook.map(at),
      sourceDateEpoch,
      signal: context.signal,
      onStep: (text) => say(session, text),
      onLine: (line) => {
        if (flags.verbose === true) session.note(`  ${line}`);
      },
    },
    bundle: {
      definition,
      out: at(bundleOut),
      sourceDateEpoch,
      signers: keys.map((key) => key.signer),
      signal: context.signal,
      toolVersion: await ownVersion(),
      ...(flags.workers === undefined ? {} : { workers: flags.workers }),
      onProgress: ({ phase, doneBytes, totalBytes }) => {
        if (phase !== 'chunk') return;
        progress ??= session.progress(`build ${bundleOut}`, totalBytes);
        progress.update(doneBytes);
        if (doneBytes === totalBytes) progress.end();
      },
    },
    slotBytes: flags.slotSize,
    imageOut: flags.imageOut === undefined ? null : at(flags.imageOut),
  };
  return await makeImage(options, disk).finally(() => (progress as Progress | null)?.end());
}

/** A step that has begun: a line for people, an object for programs. */
function say(session: Session, text: string): void {
  if (session.json) session.context.err.write(`${JSON.stringify({ event: 'step', text })}\n`);
  else session.note(`• ${text}`);
}

type Summary = ReturnType<typeof summaryOf>;

function summaryOf({ bundle, imageBytes }: MadeImage): {
  readonly artifactId: string;
  readonly class: string;
  readonly version: string;
  readonly release: number;
  readonly imageBytes: number;
  readonly bundle: string;
  readonly bundleBytes: number;
} {
  const { class: ofClass, version, release } = bundle.manifest;
  return {
    artifactId: bundle.artifactId,
    class: ofClass,
    version,
    release,
    imageBytes,
    bundle: bundle.path,
    bundleBytes: bundle.bundleBytes,
  };
}

function fieldsOf(found: Summary): [string, string][] {
  return [
    ['artifact', found.artifactId],
    ['release', `${found.class}/${found.version} (release ${found.release})`],
    ['root', formatBytes(found.imageBytes)],
    ['bundle', `${found.bundle}, ${formatBytes(found.bundleBytes)}`],
  ];
}

function epochOf(context: CliContext): number {
  const text = context.env['SOURCE_DATE_EPOCH'];
  if (text === undefined || text === '') return Math.floor(context.now() / 1000);
  if (!/^\d{1,12}$/.test(text)) throw new Problem('E_USAGE', `SOURCE_DATE_EPOCH is '${text}'`);
  return Number(text);
}

function parseLoader(text: string): Loader {
  const found = loaders.find((loader) => loader === text);
  if (found === undefined)
    throw new Problem('E_USAGE', `'${text}' is no boot loader: ${loaders.join(', ')}`);
  return found;
}

function collect(value: string, before: readonly string[]): readonly string[] {
  return [...before, value];
}

function words(value: string, before: readonly string[]): readonly string[] {
  return [...before, ...value.split(',').filter((word) => word !== '')];
}
