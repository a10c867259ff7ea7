/** Looks for a secret where none may be: in any form that a program would give it, in files, arguments and environments. */
import { createHash } from 'node:crypto';
import { lstatSync, readdirSync, readFileSync, readlinkSync } from 'node:fs';
import { join } from 'node:path';

export interface Form {
  readonly name: string;
  readonly bytes: Buffer;
}

/** As it is, encoded, and hashed: a hash of a secret can be tried offline (G09). */
export function formsOf(what: string, secret: Uint8Array): readonly Form[] {
  const bytes = Buffer.from(secret);
  const texts: [string, string | Buffer][] = [
    ['plain', bytes],
    ['UTF-16', Buffer.from(bytes.toString('utf8'), 'utf16le')],
    ['hex', bytes.toString('hex')],
    ['URL', encodeURIComponent(bytes.toString('latin1'))],
  ];
  // Base64 of a text that holds it: what does not depend on the bytes around it, for each of three offsets.
  for (const offset of [0, 1, 2]) {
    const whole = Buffer.concat([Buffer.alloc(offset), bytes]).toString('base64');
    const inner = whole.replaceAll('=', '').slice(offset === 0 ? 0 : offset + 1, -1);
    texts.push([`base64 at ${offset}`, inner]);
    texts.push([`base64url at ${offset}`, inner.replaceAll('+', '-').replaceAll('/', '_')]);
  }
  for (const algorithm of ['md5', 'sha1', 'sha256', 'sha512']) {
    for (const end of ['', '\n']) {
      const digest = createHash(algorithm).update(bytes).update(end).digest();
      texts.push([algorithm, digest], [`${algorithm} hex`, digest.toString('hex')]);
      texts.push([`${algorithm} base64`, digest.toString('base64').replaceAll('=', '')]);
    }
  }
  return texts.map(([name, text]) => ({ name: `${what} ${name}`, bytes: Buffer.from(text) }));
}

/** The forms that stand in these bytes. */
export function formsIn(bytes: Uint8Array, forms: readonly Form[]): readonly string[] {
  const buffer = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  return forms.filter((form) => buffer.includes(form.bytes)).map(({ name }) => name);
}

/** Files below `root` that hold one of the forms, as `path: form`. Links are not followed. */
export function filesWith(root: string, forms: readonly Form[]): readonly string[] {
  return readdirSync(root, { withFileTypes: true }).flatMap((entry) => {
    const path = join(root, entry.name);
    const named = formsIn(Buffer.from(entry.name), forms).map((form) => `name ${path}: ${form}`);
    if (entry.isDirectory()) return [...named, ...filesWith(path, forms)];
    return [...named, ...formsIn(contentOf(path), forms).map((form) => `${path}: ${form}`)];
  });
}

/** Of a file, or the text of a link; empty for what is neither, or is gone by now. */
function contentOf(path: string): Buffer {
  const status = lstatSync(path, { throwIfNoEntry: false });
  if (status?.isSymbolicLink() === true) return Buffer.from(readlinkSync(path));
  return status?.isFile() === true ? readFileSync(path) : Buffer.alloc(0);
}

/** A process and all that it started. */
export function processTree(root: number): readonly number[] {
  const parents = new Map<number, number>();
  for (const name of readdirSync('/proc')) {
    if (!/^\d+$/.test(name)) continue;
    const status = readProcess(Number(name), 'stat');
    const [, parent] = /^\d+ \(.*\) \S (\d+)/s.exec(status.toString()) ?? [];
    if (parent !== undefined) parents.set(Number(name), Number(parent));
  }
  const tree = [root];
  for (const pid of tree)
    for (const [child, parent] of parents) if (parent === pid) tree.push(child);
  return tree;
}

/** What /proc says of it; empty for a process that is gone. */
export function readProcess(pid: number, file: 'stat' | 'cmdline' | 'environ' | 'limits'): Buffer {
  try {
    return readFileSync(`/proc/${pid}/${file}`);
  } catch {
    return Buffer.alloc(0);
  }
}

/** Processes of the tree whose arguments or environment hold one of the forms. */
export function processesWith(root: number, forms: readonly Form[]): readonly string[] {
  return processTree(root).flatMap((pid) =>
    (['cmdline', 'environ'] as const).flatMap((file) =>
      formsIn(readProcess(pid, file), forms).map((form) => `${file} of ${pid}: ${form}`),
    ),
  );
}
