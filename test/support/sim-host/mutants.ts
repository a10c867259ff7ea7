/**
 * Mutants of the durable writes (T14): a file port in which one call site forgets its sync, syncs too late, or swaps a file
 * in two steps. Call sites are told apart by the functions of the agent on the stack.
 */
import type { FileHandlePort, FilePort } from '#/agent/ports.ts';

export type MutantKind =
  | 'no sync'
  | 'sync after rename'
  | 'rename in two steps'
  | 'link in two steps';
export interface Mutant {
  readonly kind: MutantKind;
  /** The functions that lead to the call, innermost first; with ` *` at its end, whoever calls those. */
  readonly site: string;
}

/** Functions of agent/ that lead to this call, innermost first: `syncDirectory < replaceFile < Object.write`. */
function callSite(): string {
  const limit = Error.stackTraceLimit;
  Error.stackTraceLimit = 30;
  const { stack = '' } = new Error();
  Error.stackTraceLimit = limit;
  const frames = stack.split('\n').flatMap((line) => {
    const match =
      /at (?:async )?(?:([\w.#<>]+(?: \[as [\w-]+\])?) \()?(?:file:\/\/)?[^\s()]*\/agent\/([\w/-]+)\.ts/.exec(
        line,
      );
    if (match === null || /(?:^|\/)(?:runner|executors|reporter|reserve)$/.test(match[2] ?? ''))
      return [];
    const name = (match[1] ?? '').replace(/ \[as .*$/, '').replace(/^.*\./, '');
    return /^(?:|withHandle|writing|spend|drop)$/.test(name) ? [] : [name];
  });
  return frames.slice(0, 4).join(' < ');
}

/** Notes every call site of syncs and renames while it passes everything on. */
export function recordSites(files: FilePort, found: Map<string, Mutant>): FilePort {
  const note = (kind: MutantKind): void => {
    const site = callSite();
    found.set(`${kind}: ${site}`, { kind, site });
  };
  return {
    ...files,
    async open(path, flags) {
      const handle = await files.open(path, flags);
      const isFile = flags !== 'directory';
      return {
        ...handle,
        sync() {
          note('no sync');
          if (isFile && path.endsWith('.tmp')) note('sync after rename');
          return handle.sync();
        },
      };
    },
    async rename(from, to) {
      const found = await files.stat(from);
      if (found?.kind === 'file') note('rename in two steps');
      if (found?.kind === 'link') note('link in two steps');
      await files.rename(from, to);
    },
  };
}

/** The file port with this one mistake. `onHit` is called when it is made. */
export function mutate(files: FilePort, mutant: Mutant, onHit: () => void): FilePort {
  const late = new Map<string, FileHandlePort>();
  const statement = mutant.site.endsWith(' *') ? mutant.site.slice(0, -2) : null;
  const isHere = (): boolean => {
    const site = callSite();
    const isCalled =
      statement !== null && (site === statement || site.startsWith(`${statement} < `));
    if (site !== mutant.site && !isCalled) return false;
    onHit();
    return true;
  };
  const isSync = mutant.kind === 'no sync' || mutant.kind === 'sync after rename';
  return {
    ...files,
    async open(path, flags) {
      const handle = await files.open(path, flags);
      if (!isSync) return handle;
      return {
        ...handle,
        async sync() {
          if (!isHere()) return await handle.sync();
          if (mutant.kind === 'sync after rename') late.set(path, await files.open(path, 'append'));
        },
      };
    },
    async rename(from, to) {
      const isTwoSteps = !isSync && isHere();
      if (isTwoSteps && (await files.stat(to)) !== null) await files.unlink(to);
      await files.rename(from, to);
      const handle = late.get(from);
      late.delete(from);
      await handle?.sync();
    },
  };
}
