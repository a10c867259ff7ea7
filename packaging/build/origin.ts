/** Where a build comes from: the repository, its version, and its time. */
import { execFile } from 'node:child_process';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import * as v from 'valibot';

export const repositoryRoot = fileURLToPath(new URL('../..', import.meta.url));

const packageFile = v.object({ version: v.string() });
/** Of a tree that is no checkout and says no time: the first second of the year of the first release. */
const EPOCH_UNKNOWN_S = Date.UTC(2026, 0, 1) / 1000;

/** The version of package.json. */
export async function packageVersion(): Promise<string> {
  const text = await readFile(join(repositoryRoot, 'package.json'), 'utf8');
  return v.parse(packageFile, JSON.parse(text)).version;
}

/** The time of the sources, ms: `SOURCE_DATE_EPOCH`, else that of the newest commit. */
export async function epochMs(): Promise<number> {
  const given = process.env['SOURCE_DATE_EPOCH'] ?? '';
  if (/^\d{1,11}$/.test(given)) return Number(given) * 1000;
  try {
    const run = promisify(execFile);
    const { stdout } = await run('git', ['log', '-1', '--format=%ct'], { cwd: repositoryRoot });
    if (/^\d+\n$/.test(stdout)) return Number(stdout) * 1000;
  } catch {
    // No git or no checkout.
  }
  return EPOCH_UNKNOWN_S * 1000;
}
