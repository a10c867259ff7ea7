/** House rules that a test can hold, each a function from files to breaches (STYLE.md, marked [tidy]). */
import { targetOf } from './boundaries.ts';
import { type Breach, importsOf, lineAt, read, type SourceFile } from './source.ts';

export const FILE_LINES_MAX = 500;
/** Tests are lists: they may be longer. */
export const TEST_LINES_MAX = 700;
/** The formatter holds code to 100; what is longer is text that cannot be wrapped. */
export const LINE_COLUMNS_MAX = 200;
const bannedNames = [
  'util',
  'utils',
  'lib',
  'common',
  'helper',
  'helpers',
  'manager',
  'misc',
  'shared',
  'index',
];
// Built from halves, or this file would be its own first breach.
const marks = ['TO' + 'DO', 'FIX' + 'ME', 'XX' + 'X'];

const isCode = (file: SourceFile): boolean => /\.(ts|tsx|mjs)$/.test(file.path);
const isTest = (file: SourceFile): boolean => file.path.startsWith('test/');

/** Breaches where a pattern stands in a file. */
function found(file: SourceFile, text: string, pattern: RegExp, what: string): readonly Breach[] {
  return [...text.matchAll(pattern)].map((match) => ({
    path: file.path,
    line: lineAt(text, match.index),
    what: `${what}: ${match[0].trim()}`,
  }));
}

/** `allowed`: paths of files that may be longer, each with its reason. */
export function sizeBreaches(
  files: readonly SourceFile[],
  allowed: Readonly<Record<string, string>> = {},
): readonly Breach[] {
  return files.filter(isCode).flatMap((file) => {
    const lines = file.text.split('\n');
    const long = lines.flatMap((line, at) =>
      line.length > LINE_COLUMNS_MAX
        ? [{ path: file.path, line: at + 1, what: `line of ${line.length} columns` }]
        : [],
    );
    const maxLines = isTest(file) ? TEST_LINES_MAX : FILE_LINES_MAX;
    if (lines.length - 1 > maxLines && allowed[file.path] === undefined) {
      long.push({
        path: file.path,
        line: maxLines,
        what: `file of ${lines.length - 1} lines`,
      });
    }
    return long;
  });
}

/** Drawers: folders and files whose name says nothing. */
export function nameBreaches(files: readonly SourceFile[]): readonly Breach[] {
  return files.filter(isCode).flatMap((file) => {
    const names = file.path.split('/').map((part) => part.replace(/(\.test)?\.[a-z]+$/, ''));
    return names
      .filter((name) => bannedNames.includes(name))
      .map((name) => ({ path: file.path, line: 1, what: `a name that says nothing: ${name}` }));
  });
}

/** Marks of unfinished work, absolute paths of one machine, and hosts of package registries. */
export function wordBreaches(files: readonly SourceFile[]): readonly Breach[] {
  return files.flatMap((file) => [
    ...found(
      file,
      file.text,
      new RegExp(`\\b(?:${marks.join('|')})\\b`, 'g'),
      'a mark of unfinished work',
    ),
    ...found(
      file,
      file.text,
      /(?<![\w.~-])\/(?:work|root|home\/[a-z]+|Users\/[a-z]+)\/[\w.-]+/g,
      'an absolute path',
    ),
    ...found(
      file,
      file.text,
      /\b(?:registry\.npmjs\.org|registry\.yarnpkg\.com|npm\.pkg\.github\.com)\b/g,
      'a package registry',
    ),
  ]);
}

/** Tests that do not run, or keep others from running. `runIf` and `skipIf` say on what they depend and are allowed. */
export function testModeBreaches(files: readonly SourceFile[]): readonly Breach[] {
  return files
    .filter(isTest)
    .flatMap((file) =>
      found(
        file,
        read(file.text).code,
        /\b(?:it|test|describe|suite|bench)\.(?:only|skip|todo|fails)\b|\b(?:xit|xdescribe|fit|fdescribe)\s*\(/g,
        'a test that does not run',
      ),
    );
}

export interface Titled {
  readonly path: string;
  readonly line: number;
  readonly title: string;
}

/** Titles of the tests of a file; templates of `it.each` count as they stand. */
export function titlesOf(file: SourceFile): readonly Titled[] {
  const { code, literals } = read(file.text);
  return literals.flatMap((literal) => {
    const before = code.slice(Math.max(0, literal.at - 3000), literal.at);
    const isTitle =
      /\b(?:it|test)(?:\.(?:each|for|runIf|skipIf|concurrent|sequential)\b[^;]*?\))?\s*\(\s*$/.test(
        before,
      );
    return isTitle
      ? [{ path: file.path, line: lineAt(file.text, literal.at), title: literal.value }]
      : [];
  });
}

/** Two tests of one file with one title: a report could not tell which failed. */
export function duplicateTitleBreaches(files: readonly SourceFile[]): readonly Breach[] {
  return files
    .filter((file) => file.path.endsWith('.test.ts'))
    .flatMap((file) => {
      const seen = new Map<string, number>();
      return titlesOf(file).flatMap(({ title, line }) => {
        const earlier = seen.get(title);
        seen.set(title, line);
        return earlier === undefined
          ? []
          : [{ path: file.path, line, what: `the title of line ${earlier} again: ${title}` }];
      });
    });
}

/** State of a module: two agents in one process would share it. `programs`: files that are a process or thread of their own. */
export function moduleStateBreaches(
  files: readonly SourceFile[],
  programs: readonly string[] = [],
): readonly Breach[] {
  const isProgram = (path: string): boolean =>
    path.endsWith('/main.ts') || path.startsWith('packaging/') || programs.includes(path);
  return files
    .filter((file) => isCode(file) && !isTest(file) && !isProgram(file.path))
    .flatMap((file) => {
      const { code } = read(file.text);
      return [
        ...found(file, code, /^(?:export )?(?:let|var)\s+\w+/gm, 'state of a module'),
        ...found(file, code, emptyCollection, 'state of a module'),
      ];
    });
}

const emptyCollection =
  /^(?:export )?const \w+(?:: [^=\n]+)? = new (?:Map|Set|WeakMap|WeakSet)(?:<[^\n]*>)?\(\)/gm;

/** Codes that are thrown but not in the table, and rows of the table that nothing uses (unless they are reserved). */
export function errorCodeBreaches(
  files: readonly SourceFile[],
  table: readonly string[],
  reserved: Readonly<Record<string, string>>,
): readonly Breach[] {
  const used = new Set<string>();
  const breaches: Breach[] = [];
  const where = 'protocol/errors.ts';
  for (const file of files.filter(
    (one) => isCode(one) && one.path !== where && !one.path.startsWith('test/tidy'),
  )) {
    for (const { at, value } of read(file.text).literals) {
      if (!/^E_[A-Z_]+$/.test(value)) continue;
      if (!isTest(file)) used.add(value);
      if (!table.includes(value) && !isTest(file)) {
        breaches.push({
          path: file.path,
          line: lineAt(file.text, at),
          what: `${value} is not in the error table`,
        });
      }
    }
  }
  for (const code of table) {
    if (!used.has(code) && reserved[code] === undefined) {
      breaches.push({ path: where, line: 1, what: `${code} is used nowhere` });
    }
  }
  for (const code of Object.keys(reserved)) {
    if (used.has(code))
      breaches.push({ path: where, line: 1, what: `${code} is used now: it is reserved no more` });
    if (!table.includes(code))
      breaches.push({ path: where, line: 1, what: `${code} is reserved but not in the table` });
  }
  return breaches;
}

/** Files that nothing reaches from a program, a script or a test. `entries` are paths that are started by name. */
export function deadFileBreaches(
  files: readonly SourceFile[],
  entries: readonly string[],
): readonly Breach[] {
  const code = new Map(files.filter(isCode).map((file) => [file.path, file]));
  const reach = (starts: readonly string[]): ReadonlySet<string> => {
    const seen = new Set<string>();
    const open = starts.filter((path) => code.has(path));
    for (let path = open.pop(); path !== undefined; path = open.pop()) {
      const file = code.get(path);
      if (file === undefined || seen.has(path)) continue;
      seen.add(path);
      for (const { specifier } of importsOf(file)) open.push(targetOf(path, specifier));
      // Workers and child programs are named by URL or path in a string.
      for (const { value } of read(file.text).literals) {
        if (/^(\.{1,2}|#)?\/?[\w./-]+\.(ts|mjs)$/.test(value)) {
          open.push(
            targetOf(path, value.startsWith('.') || value.startsWith('#') ? value : `./${value}`),
            value,
          );
        }
      }
    }
    return seen;
  };
  const tests = [...code.keys()].filter((path) => path.endsWith('.test.ts'));
  const live = reach(entries);
  const withTests = reach([...entries, ...tests]);
  return [...code.keys()].flatMap((path) => {
    if (path.startsWith('test/'))
      return withTests.has(path) ? [] : [dead(path, 'no test reaches it')];
    if (live.has(path)) return [];
    return [dead(path, withTests.has(path) ? 'only tests reach it' : 'nothing reaches it')];
  });
}

const dead = (path: string, what: string): Breach => ({ path, line: 1, what });

/** Links between Markdown files that lead nowhere. `paths`: everything that exists. */
export function linkBreaches(
  files: readonly SourceFile[],
  paths: ReadonlySet<string>,
): readonly Breach[] {
  const folders = new Set(
    [...paths].flatMap((path) =>
      path.split('/').map((_, at, parts) => parts.slice(0, at).join('/')),
    ),
  );
  return files
    .filter((file) => file.path.endsWith('.md'))
    .flatMap((file) =>
      [...file.text.matchAll(/\]\(([^)\s]+)\)/g)].flatMap((match) => {
        const link = (match[1] ?? '').replace(/#.*$/, '');
        if (link === '' || /^[a-z]+:/.test(link)) return [];
        const target = targetOf(file.path, link.startsWith('.') ? link : `./${link}`).replace(
          /\/$/,
          '',
        );
        const exists = paths.has(target) || folders.has(target);
        return exists
          ? []
          : [
              {
                path: file.path,
                line: lineAt(file.text, match.index),
                what: `leads nowhere: ${link}`,
              },
            ];
      }),
    );
}

/** `npm run x`, `switchback a b` and `switchback-agent a` in the docs that do not exist. */
export function commandBreaches(
  files: readonly SourceFile[],
  scripts: readonly string[],
  programs: Readonly<Record<string, readonly string[]>>,
): readonly Breach[] {
  return files
    .filter((file) => file.path.endsWith('.md'))
    .flatMap((file) => [
      ...[...file.text.matchAll(/\bnpm run ([a-z][\w:-]*)/g)]
        .filter((match) => !scripts.includes(match[1] ?? ''))
        .map((match) => unknown(file, match, 'script')),
      ...Object.entries(programs).flatMap(([program, commands]) =>
        [...file.text.matchAll(mentionsOf(program))]
          .filter((match) => !isCommand(commands, match[1] ?? '', match[2]))
          .map((match) => unknown(file, match, 'command')),
      ),
    ]);
}

/** Where a program is called with a command: at the start of a line, or after a quote, a prompt or another command. */
const mentionsOf = (program: string): RegExp =>
  new RegExp(`(?:^|\`|\\$ |&& |\\| |<\\()${program} ([a-z][a-z-]*)(?: ([a-z][a-z-]*))?`, 'gm');

function isCommand(
  commands: readonly string[],
  first: string,
  second: string | undefined,
): boolean {
  if (commands.includes(first)) return true;
  if (second !== undefined) return commands.includes(`${first} ${second}`);
  return commands.some((name) => name.startsWith(`${first} `));
}

const unknown = (file: SourceFile, match: RegExpExecArray, kind: string): Breach => ({
  path: file.path,
  line: lineAt(file.text, match.index),
  what: `no such ${kind}: ${match[0].trim()}`,
});
