/** `switchback version`. */
import { readFile } from 'node:fs/promises';
import * as v from 'valibot';
import type { CliContext } from '#/control/cli/context.ts';
import { addCommand, type DescribedCommand } from '#/control/cli/describe.ts';
import { openSession } from '#/control/cli/session.ts';

/** Put in by packaging/build.ts. */
declare const SWITCHBACK_BUILD: { readonly version: string } | undefined;

const packageFile = v.object({ version: v.string() });

export function addVersionCommand(program: DescribedCommand, context: CliContext): void {
  const command = addCommand(
    program,
    'version',
    'Show the version of this program and its runtime.',
  );
  command.explain(['switchback version'], '`{version, node}`').action(async () => {
    openSession(context, command).print(
      { version: await ownVersion(), node: process.versions.node },
      (found) => `switchback ${found.version} (node ${found.node})\n`,
    );
  });
}

/** The version of this program. */
export async function ownVersion(): Promise<string> {
  if (typeof SWITCHBACK_BUILD !== 'undefined') return SWITCHBACK_BUILD.version;
  const text = await readFile(new URL('../../../package.json', import.meta.url), 'utf8');
  return v.parse(packageFile, JSON.parse(text)).version;
}
