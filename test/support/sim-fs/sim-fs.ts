/**
 * An in-memory file system behind the agent's file port. It behaves like the real one (test/conformance/file-port) and
 * records every change, so that crash-states.ts can say what a disk may hold after a crash at any moment.
 */
import { fileProblem } from '#/agent/adapters/file-port.ts';
import type { FileHandlePort, FilePort } from '#/agent/ports.ts';
import { ROOT, type Image, type Inode, type Node } from './image.ts';
import { applyData, type EntryChange, type LogEntry } from './log.ts';

/** A changing operation that is about to run, for fault injection. `index` counts them from 0. */
export interface Operation {
  readonly index: number;
  readonly name:
    | 'create'
    | 'write'
    | 'truncate'
    | 'sync'
    | 'rename'
    | 'unlink'
    | 'mkdir'
    | 'rmdir'
    | 'symlink';
  readonly path: string;
}
/** An errno: the operation fails with it. `short`: a write takes only the first half. Null: it runs. */
export type Injection = string | 'short' | null;

export interface SimFs {
  readonly files: FilePort;
  readonly log: readonly LogEntry[];
  /** Records a change of the world outside the disk. */
  mark(world: unknown): void;
  /** What every program sees now. */
  image(): Image;
  /** Changing operations so far. */
  operations(): number;
}

const MAX_LINKS = 16;

/**
 * A simulated disk that holds `start`. `inject` is asked before each changing operation. `past` is the log of a run that
 * was killed before on the same, still running system: it ends in `start`, and its unsynced changes are still unsynced.
 */
export function simFs(
  start: Image,
  inject: (operation: Operation) => Injection = () => null,
  past: readonly LogEntry[] = [],
): SimFs {
  const nodes = new Map<Inode, Node>(start.nodes);
  const entries = new Map<Inode, Map<string, Inode>>(
    [...start.entries].map(([inode, map]) => [inode, new Map(map)]),
  );
  const log: LogEntry[] = [...past];
  // Also not one of a file that is gone: the log still speaks of it.
  const made = past.map((entry) => (entry.do === 'entries' ? (entry.made?.inode ?? 0) : 0));
  let nextInode = 1 + [...nodes.keys(), ...made].reduce((most, one) => Math.max(most, one), 0);
  let operationCount = 0;

  const enter = (name: Operation['name'], path: string): Injection => {
    const injected = inject({ index: operationCount, name, path });
    operationCount += 1;
    if (injected !== null && injected !== 'short' && name !== 'sync') {
      throw fileProblem(name, path, injected);
    }
    return injected;
  };

  const directoryAt = (path: string, operation: string): Inode => {
    const inode = walk(path, 0, operation, path);
    if (nodes.get(inode)?.kind !== 'directory') throw fileProblem(operation, path, 'ENOTDIR');
    return inode;
  };
  /** Follows links everywhere, also at the end. */
  const walk = (path: string, depth: number, operation: string, whole: string): Inode => {
    if (depth > MAX_LINKS) throw fileProblem(operation, whole, 'ELOOP');
    if (!path.startsWith('/')) throw new Error(`an absolute path: ${path}`);
    let at = ROOT;
    let prefix = '';
    for (const part of path.split('/').filter((one) => one !== '' && one !== '.')) {
      if (nodes.get(at)?.kind !== 'directory') throw fileProblem(operation, whole, 'ENOTDIR');
      const next = part === '..' ? parentIn(prefix) : entries.get(at)?.get(part);
      if (next === undefined) throw fileProblem(operation, whole, 'ENOENT');
      const node = nodes.get(next);
      at =
        node?.kind === 'link'
          ? walk(
              node.target.startsWith('/') ? node.target : `${prefix}/${node.target}`,
              depth + 1,
              operation,
              whole,
            )
          : next;
      prefix = `${prefix}/${part}`;
    }
    return at;
  };
  const parentIn = (prefix: string): Inode =>
    walk(prefix.slice(0, prefix.lastIndexOf('/')) || '/', 0, 'open', prefix);

  /** The directory and name of the last component, and what is there; links in it are not followed. */
  const locate = (
    path: string,
    operation: string,
  ): { readonly directory: Inode; readonly name: string; readonly inode: Inode | null } => {
    const slash = path.lastIndexOf('/');
    const directory = directoryAt(path.slice(0, slash) || '/', operation);
    const name = path.slice(slash + 1);
    return { directory, name, inode: entries.get(directory)?.get(name) ?? null };
  };

  const change = (
    changes: readonly EntryChange[],
    made: { readonly inode: Inode; readonly node: Node } | null,
  ): void => {
    if (made !== null) {
      nodes.set(made.inode, made.node);
      if (made.node.kind === 'directory') entries.set(made.inode, new Map());
    }
    for (const one of changes) {
      const map = entries.get(one.directory);
      if (one.after === null) map?.delete(one.name);
      else map?.set(one.name, one.after);
    }
    log.push({ do: 'entries', changes, made });
  };
  const add = (path: string, operation: Operation['name'], node: Node): Inode => {
    const place = locate(path, operation);
    if (place.inode !== null) throw fileProblem(operation, path, 'EEXIST');
    const inode = nextInode;
    nextInode += 1;
    change([{ directory: place.directory, name: place.name, after: inode }], { inode, node });
    return inode;
  };
  const removeEntry = (path: string, operation: 'unlink' | 'rmdir'): void => {
    const place = locate(path, operation);
    if (place.inode === null) throw fileProblem(operation, path, 'ENOENT');
    const isDirectory = nodes.get(place.inode)?.kind === 'directory';
    if (operation === 'unlink' && isDirectory) throw fileProblem(operation, path, 'EISDIR');
    if (operation === 'rmdir' && !isDirectory) throw fileProblem(operation, path, 'ENOTDIR');
    if (isDirectory && (entries.get(place.inode)?.size ?? 0) > 0) {
      throw fileProblem(operation, path, 'ENOTEMPTY');
    }
    change([{ directory: place.directory, name: place.name, after: null }], null);
  };

  const handleOf = (inode: Inode, path: string): FileHandlePort => {
    let isClosed = false;
    let isSpent = false;
    const use = (operation: string): void => {
      if (isClosed) throw fileProblem(operation, path, 'EBADF');
      if (isSpent) throw fileProblem(operation, path, 'EIO');
    };
    const content = (operation: string): Uint8Array => {
      const node = nodes.get(inode);
      if (node?.kind !== 'file') throw fileProblem(operation, path, 'EISDIR');
      return node.bytes;
    };
    const changeData = (entry: Extract<LogEntry, { do: 'write' | 'truncate' }>): void => {
      nodes.set(inode, { kind: 'file', bytes: applyData(content(entry.do), entry) });
      log.push(entry);
    };
    return {
      async read(buffer, position) {
        if (isClosed) throw fileProblem('read', path, 'EBADF');
        const part = content('read').subarray(position, position + buffer.byteLength);
        buffer.set(part);
        return part.byteLength;
      },
      async write(bytes, position) {
        use('write');
        const injected = enter('write', path);
        const taken = injected === 'short' ? bytes.subarray(0, (bytes.byteLength + 1) >> 1) : bytes;
        changeData({ do: 'write', inode, position, bytes: new Uint8Array(taken) });
        return taken.byteLength;
      },
      async truncate(sizeBytes) {
        use('truncate');
        enter('truncate', path);
        changeData({ do: 'truncate', inode, sizeBytes });
      },
      async sync() {
        use('fsync');
        const injected = enter('sync', path);
        if (injected === null || injected === 'short') {
          log.push({ do: 'sync', inode });
          return;
        }
        isSpent = true;
        log.push({ do: 'failed-sync', inode });
        throw fileProblem('fsync', path, injected);
      },
      async close() {
        use('close');
        isClosed = true;
      },
    };
  };

  const files: FilePort = {
    async open(path, flags) {
      const inode = path === '/' ? ROOT : locate(path, 'open').inode;
      const kind = inode === null ? null : (nodes.get(inode)?.kind ?? null);
      if (flags === 'create' && inode !== null) throw fileProblem('open', path, 'EEXIST');
      if (flags === 'directory') {
        if (kind === 'link' || kind === 'file') throw fileProblem('open', path, 'ENOTDIR');
      } else if (kind === 'link') {
        throw fileProblem('open', path, 'ELOOP');
      } else if (kind === 'directory' && flags === 'append') {
        throw fileProblem('open', path, 'EISDIR');
      }
      if (inode !== null) return handleOf(inode, path);
      if (flags === 'read' || flags === 'directory') throw fileProblem('open', path, 'ENOENT');
      enter('create', path);
      return handleOf(add(path, 'create', { kind: 'file', bytes: new Uint8Array() }), path);
    },
    async rename(from, to) {
      const source = locate(from, 'rename');
      const target = locate(to, 'rename');
      if (source.inode === null) throw fileProblem('rename', to, 'ENOENT');
      enter('rename', to);
      if (source.inode === target.inode) return;
      refuseRename(source.inode, target.inode, to);
      change(
        [
          { directory: target.directory, name: target.name, after: source.inode },
          { directory: source.directory, name: source.name, after: null },
        ],
        null,
      );
    },
    async unlink(path) {
      if (locate(path, 'unlink').inode !== null) enter('unlink', path);
      removeEntry(path, 'unlink');
    },
    async mkdir(path) {
      if (locate(path, 'mkdir').inode === null) enter('mkdir', path);
      add(path, 'mkdir', { kind: 'directory' });
    },
    async rmdir(path) {
      if (locate(path, 'rmdir').inode !== null) enter('rmdir', path);
      removeEntry(path, 'rmdir');
    },
    async symlink(target, path) {
      if (locate(path, 'symlink').inode === null) enter('symlink', path);
      add(path, 'symlink', { kind: 'link', target });
    },
    async readlink(path) {
      const { inode } = locate(path, 'readlink');
      if (inode === null) throw fileProblem('readlink', path, 'ENOENT');
      const node = nodes.get(inode);
      if (node?.kind !== 'link') throw fileProblem('readlink', path, 'EINVAL');
      return node.target;
    },
    async list(path) {
      const found = [...(entries.get(directoryAt(path, 'list')) ?? [])];
      return found
        .map(([name, inode]) => ({ name, kind: nodes.get(inode)?.kind ?? ('other' as const) }))
        .sort((a, b) => (a.name < b.name ? -1 : 1));
    },
    async stat(path) {
      try {
        const { inode } = path === '/' ? { inode: ROOT } : locate(path, 'stat');
        const node = inode === null ? undefined : nodes.get(inode);
        if (node === undefined) return null;
        const sizeBytes = node.kind === 'file' ? node.bytes.byteLength : 0;
        return { sizeBytes, kind: node.kind, mtimeMs: 0 };
      } catch {
        return null;
      }
    },
  };
  const refuseRename = (source: Inode, target: Inode | null, path: string): void => {
    if (target === null) return;
    const isDirectory = nodes.get(target)?.kind === 'directory';
    const comesDirectory = nodes.get(source)?.kind === 'directory';
    if (isDirectory && !comesDirectory) throw fileProblem('rename', path, 'EISDIR');
    if (!isDirectory && comesDirectory) throw fileProblem('rename', path, 'ENOTDIR');
    if (isDirectory && (entries.get(target)?.size ?? 0) > 0) {
      throw fileProblem('rename', path, 'ENOTEMPTY');
    }
  };

  return {
    files,
    log,
    mark: (world) => void log.push({ do: 'mark', world }),
    image: () => ({
      nodes: new Map(nodes),
      entries: new Map([...entries].map(([inode, map]) => [inode, new Map(map)])),
    }),
    operations: () => operationCount,
  };
}
