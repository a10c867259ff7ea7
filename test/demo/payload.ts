/**
 * The payload of the demo: a real directory tree of more than 150 MB, made of what `npm ci` brought anyway: a service
 * with its own Node runtime and its libraries.
 */
import { cpSync, mkdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { arch } from 'node:process';

export interface PayloadOptions {
  readonly repository: string;
  readonly target: string;
  readonly version: string;
  /** The service answers its health check with 503 after this time; null: always healthy. */
  readonly healthyForMs: number | null;
  /** Without the runtime and the libraries: for tests, where the payload's size does not matter. */
  readonly small: boolean;
}

/** Writes the tree of one version to `target` (which must not exist). */
export function writePayload(options: PayloadOptions): void {
  const { repository, target, version } = options;
  mkdirSync(join(target, 'app'), { recursive: true });
  mkdirSync(join(target, 'bin'), { recursive: true });
  cpSync(join(repository, 'test/demo/service/server.mjs'), join(target, 'app/server.mjs'));
  writeFileSync(
    join(target, 'app/version.json'),
    `${JSON.stringify({ version, healthyForMs: options.healthyForMs })}\n`,
  );
  writeFileSync(join(target, 'app/release-notes.txt'), releaseNotes(version));
  if (options.small) return;
  cpSync(process.execPath, join(target, 'bin/node'));
  for (const library of ['undici', 'hono', 'valibot', 'kysely', 'pino', 'systeminformation']) {
    cpSync(join(repository, 'node_modules', library), join(target, 'lib', library), {
      recursive: true,
    });
  }
  markRuntime(join(target, 'bin/node'), version);
}

/** Some text that differs between versions in a few places, as notes and assets do. */
function releaseNotes(version: string): string {
  const lines = Array.from({ length: 4000 }, (_, line) =>
    line % 500 === 0
      ? `changed in ${version}: item ${line}`
      : `unchanged item ${line}: ${'x'.repeat(line % 40)}`,
  );
  return `${lines.join('\n')}\n`;
}

/**
 * Appends a version note to the runtime, so that a large binary changes a little from version to version, as a security
 * update does. Bytes after the last section of an ELF file are not loaded.
 */
function markRuntime(path: string, version: string): void {
  const size = statSync(path).size;
  const note = Buffer.alloc(4096, `switchback demo ${version} ${arch} ${size}\n`);
  writeFileSync(path, Buffer.concat([readFileSync(path), note]), { mode: 0o755 });
}
