/** `switchback bundle …`: making signed bundles, and looking into them. None of it needs control. */
import { resolve } from 'node:path';
import type { CliContext } from '#/control/cli/context.ts';
import { parseWhole } from '#/control/cli/arguments.ts';
import { type BuildResult, buildBundle } from '#/control/cli/bundle/build.ts';
import {
  checkDefinition,
  type Definition,
  DEFINITION_MAX_BYTES,
  parseDefinition,
} from '#/control/cli/bundle/definition.ts';
import { addRebuild } from '#/control/cli/commands/attest.ts';
import { addDiff, addInspect } from '#/control/cli/commands/bundle-look.ts';
import { addPatch } from '#/control/cli/commands/bundle-patch.ts';
import { addSign } from '#/control/cli/commands/bundle-sign.ts';
import { addVerify } from '#/control/cli/commands/bundle-verify.ts';
import { addCommand, addFamily, type DescribedCommand } from '#/control/cli/describe.ts';
import { readText } from '#/control/cli/files.ts';
import { signingKeys } from '#/control/cli/keys.ts';
import { renderFields } from '#/control/cli/render/table.ts';
import { formatBytes, formatDuration } from '#/control/cli/render/text.ts';
import { openSession } from '#/control/cli/session.ts';
import { ownVersion } from './version.ts';
import { Problem } from '#/protocol/errors.ts';

export function addBundleCommands(program: DescribedCommand, context: CliContext): void {
  const family = addFamily(program, 'bundle', 'Bundles: make, sign, verify and compare them.');
  addBuild(family, context);
  addSign(family, context);
  addRebuild(family, context);
  addVerify(family, context);
  addInspect(family, context);
  addDiff(family, context);
  addPatch(family, context);
}

interface BuildFlags {
  readonly definition: string;
  readonly out: string;
  readonly key?: string;
  readonly setVersion?: string;
  readonly setRelease?: number;
  readonly workers?: number;
  readonly builder?: string;
}

function addBuild(family: DescribedCommand, context: CliContext): void {
  const command = addCommand(
    family,
    'build',
    'Build and sign a bundle from a directory or an image.',
  );
  command
    .argument(
      '[input]',
      'the directory or image file; not needed when the definition lists payloads',
    )
    .requiredOption('--definition <file>', 'what the release is: TOML or JSON')
    .requiredOption('--out <file>', 'the bundle; replaced when it exists')
    .option('--key <file>', 'release keys to sign with; without it those of the settings file')
    .option('--set-version <text>', 'instead of the version in the definition')
    .option('--set-release <n>', 'instead of the release number in the definition', parseWhole(1))
    .option('--workers <n>', 'compressing threads; all cores unless given', parseWhole(1))
    .option('--builder <uri>', 'who builds, for the provenance')
    .explain(
      [
        'switchback bundle build ./dist --definition web.toml --out web-2.4.0.bundle',
        'SOURCE_DATE_EPOCH=1764100000 switchback bundle build root.ext4 --definition os.toml --out os.bundle',
      ],
      '`{artifactId, class, version, release, path, bundleBytes, contentBytes, chunkCount, durationMs}`',
    )
    .action(async (input: string | undefined) => {
      const session = openSession(context, command);
      const flags = command.opts<BuildFlags>();
      const path = resolve(context.cwd, flags.definition);
      const definition = overridden(
        parseDefinition(await readText(path, DEFINITION_MAX_BYTES), path),
        flags,
      );
      const keys = await signingKeys(session, flags.key);
      let progress: ReturnType<typeof session.progress> | null = null;
      const result = await buildBundle({
        definition,
        baseDir: resolve(path, '..'),
        out: resolve(context.cwd, flags.out),
        sourceDateEpoch: sourceDate(context),
        signers: keys.map((key) => key.signer),
        signal: context.signal,
        toolVersion: await ownVersion(),
        ...(input === undefined ? {} : { input: resolve(context.cwd, input) }),
        ...(flags.workers === undefined ? {} : { workers: flags.workers }),
        ...(flags.builder === undefined ? {} : { builderId: flags.builder }),
        onProgress: ({ phase, doneBytes, totalBytes }) => {
          if (phase !== 'chunk') return;
          progress ??= session.progress(`build ${flags.out}`, totalBytes);
          progress.update(doneBytes);
        },
      }).finally(() => progress?.end());
      session.print(summaryOf(result), (found) =>
        renderFields(
          [
            ['artifact', found.artifactId, 'bold'],
            ['release', `${found.class}/${found.version} (release ${found.release})`],
            ['content', formatBytes(found.contentBytes)],
            [
              'bundle',
              `${found.path}, ${formatBytes(found.bundleBytes)}, ${found.chunkCount} chunks`,
            ],
            ['took', formatDuration(found.durationMs)],
          ],
          session.style,
        ),
      );
      session.note(`next: switchback release import ${flags.out}`);
    });
}

function summaryOf(result: BuildResult): {
  readonly artifactId: string;
  readonly class: string;
  readonly version: string;
  readonly release: number;
  readonly path: string;
  readonly bundleBytes: number;
  readonly contentBytes: number;
  readonly chunkCount: number;
  readonly durationMs: number;
} {
  const { artifactId, manifest, path, bundleBytes, chunkCount, durationMs } = result;
  return {
    artifactId,
    class: manifest.class,
    version: manifest.version,
    release: manifest.release,
    path,
    bundleBytes,
    contentBytes: manifest.payloads.reduce((sum, payload) => sum + payload.sizeBytes, 0),
    chunkCount,
    durationMs: Math.round(durationMs),
  };
}

/** The definition with what the flags replace, checked again. */
function overridden(definition: Definition, flags: BuildFlags): Definition {
  if (flags.setVersion === undefined && flags.setRelease === undefined) return definition;
  return checkDefinition({
    ...definition,
    ...(flags.setVersion === undefined ? {} : { version: flags.setVersion }),
    ...(flags.setRelease === undefined ? {} : { release: flags.setRelease }),
  });
}

/** SOURCE_DATE_EPOCH (reproducible-builds.org) or now, in seconds. Throws E_USAGE when it is not a number. */
function sourceDate(context: CliContext): number {
  const text = context.env['SOURCE_DATE_EPOCH'];
  if (text === undefined || text === '') return Math.floor(context.now() / 1000);
  if (!/^\d{1,12}$/.test(text)) throw new Problem('E_USAGE', `SOURCE_DATE_EPOCH is '${text}'`);
  return Number(text);
}
