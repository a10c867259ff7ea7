/** One `.deb` from a list of files. The same list, version and time give the same bytes. */
import { execFile } from 'node:child_process';
import { createHash } from 'node:crypto';
import {
  chmod,
  copyFile,
  lutimes,
  mkdir,
  mkdtemp,
  readFile,
  rename,
  rm,
  writeFile,
} from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { promisify } from 'node:util';
import { gzipSync } from 'node:zlib';

/** A file of the package: its text, or another file to copy. Parents are made, 0755. */
export interface PackagedFile {
  /** Absolute, on the host. */
  readonly path: string;
  readonly content: string | Uint8Array | { readonly copyOf: string };
  readonly mode?: number;
  /** A conffile: dpkg keeps what the operator wrote. */
  readonly isConfiguration?: boolean;
}

export interface DebPackage {
  readonly name: string;
  readonly architecture: 'amd64' | 'arm64';
  readonly version: string;
  readonly epochS: number;
  readonly description: string;
  /** Lines of the control file beside those that follow from the rest: `Depends: …`. */
  readonly fields: readonly string[];
  readonly files: readonly PackagedFile[];
  /** Empty directories. */
  readonly directories: readonly string[];
  /** Maintainer scripts: name → file in this repository. */
  readonly scripts: Readonly<Record<string, string>>;
}

export const MAINTAINER = 'Switchback maintainers <maintainers@switchback.invalid>';

/** As `gzip -9n`, without a time and a name inside. */
export function gzipped(text: string): Uint8Array {
  return gzipSync(text, { level: 9 });
}

/** Writes `<directory>/<name>_<version>_<architecture>.deb` and resolves with its path. */
export async function writeDeb(deb: DebPackage, directory: string): Promise<string> {
  const stage = await mkdtemp(join(tmpdir(), 'switchback-deb-'));
  try {
    await chmod(stage, 0o755);
    const made = new Set<string>([stage]);
    const makeParents = async (path: string): Promise<void> => {
      if (made.has(path)) return;
      await makeParents(dirname(path));
      await mkdir(path, { mode: 0o755 });
      made.add(path);
    };
    for (const path of deb.directories) await makeParents(join(stage, path));
    const sums: string[] = [];
    let sizeBytes = 0;
    const files = [...deb.files].sort((a, b) => (a.path < b.path ? -1 : 1));
    for (const { path, content, mode } of files) {
      const target = join(stage, path);
      await makeParents(dirname(target));
      if (typeof content === 'object' && 'copyOf' in content)
        await copyFile(content.copyOf, target);
      else await writeFile(target, content);
      await chmod(target, mode ?? 0o644);
      made.add(target);
      const bytes = await readFile(target);
      sizeBytes += bytes.length;
      sums.push(`${createHash('md5').update(bytes).digest('hex')}  ${path.slice(1)}\n`);
    }
    const meta = join(stage, 'DEBIAN');
    await makeParents(meta);
    const put = async (name: string, text: string, mode = 0o644): Promise<void> => {
      const target = join(meta, name);
      await writeFile(target, text, { mode });
      await chmod(target, mode);
      made.add(target);
    };
    await put('control', controlText(deb, sizeBytes));
    await put('md5sums', sums.join(''));
    const conffiles = files.filter((file) => file.isConfiguration === true);
    if (conffiles.length > 0)
      await put('conffiles', conffiles.map(({ path }) => `${path}\n`).join(''));
    for (const [name, source] of Object.entries(deb.scripts))
      await put(name, await readFile(source, 'utf8'), 0o755);
    // Children before their parents: writing a child changes the time of its parent.
    for (const path of [...made].reverse()) await lutimes(path, deb.epochS, deb.epochS);
    const out = join(directory, `${deb.name}_${deb.version}_${deb.architecture}.deb`);
    await promisify(execFile)(
      'dpkg-deb',
      ['--root-owner-group', '-Zxz', '-z1', '--threads-max=2', '--build', stage, `${out}.tmp`],
      {
        env: {
          PATH: process.env['PATH'] ?? '',
          SOURCE_DATE_EPOCH: String(deb.epochS),
          LC_ALL: 'C',
        },
      },
    );
    // A build that was ended leaves no half package under its name.
    await rename(`${out}.tmp`, out);
    return out;
  } finally {
    await rm(stage, { recursive: true, force: true });
  }
}

function controlText(deb: DebPackage, sizeBytes: number): string {
  return [
    `Package: ${deb.name}`,
    `Version: ${deb.version}`,
    `Architecture: ${deb.architecture}`,
    `Maintainer: ${MAINTAINER}`,
    `Installed-Size: ${Math.ceil(sizeBytes / 1024)}`,
    ...deb.fields,
    'Section: admin',
    'Priority: optional',
    `Description: ${deb.description}`,
    '',
  ].join('\n');
}
