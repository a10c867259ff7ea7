/**
 * The house rules that a machine can hold (STYLE.md, marked [tidy]). A breach is named with file and line; the rules
 * themselves are proven able to fail in test/unit/tidy.
 */
import { fileURLToPath } from 'node:url';
import { beforeAll, describe, expect, it } from 'vitest';
import { agentCommands } from '#/agent/cli/main.ts';
import { contextForDocs } from '#/control/cli/context.ts';
import { leavesOf } from '#/control/cli/describe.ts';
import { buildProgram } from '#/control/cli/program.ts';
import { generatedFiles } from '#/packaging/docs/generated.ts';
import { errors } from '#/protocol/errors.ts';
import { boundaryBreaches } from './tidy/boundaries.ts';
import { caseMap, required, unwitnessed } from './tidy/cases.ts';
import {
  longFiles,
  pendingCases,
  reservedCodes,
  startedByName,
  unreached,
} from './tidy/exceptions.ts';
import {
  commandBreaches,
  deadFileBreaches,
  duplicateTitleBreaches,
  errorCodeBreaches,
  linkBreaches,
  moduleStateBreaches,
  nameBreaches,
  sizeBreaches,
  testModeBreaches,
  wordBreaches,
} from './tidy/rules.ts';
import type { Breach, SourceFile } from './tidy/source.ts';
import { listTree, readTree } from './tidy/tree.ts';

const root = fileURLToPath(new URL('..', import.meta.url));
const shown = (breaches: readonly Breach[]): readonly string[] =>
  breaches.map((breach) => `${breach.path}:${breach.line} ${breach.what}`);

describe('tidy', () => {
  let files: readonly SourceFile[] = [];
  let code: readonly SourceFile[] = [];
  let paths: readonly string[] = [];
  let scripts: Readonly<Record<string, string>> = {};

  beforeAll(async () => {
    files = await readTree(root);
    paths = await listTree(root);
    code = files.filter((file) => /\.(ts|tsx|mjs)$/.test(file.path));
    const manifest = files.find((file) => file.path === 'package.json');
    scripts = (JSON.parse(manifest?.text ?? '{}') as { scripts: Record<string, string> }).scripts;
  });

  it('the tree was not read: the rules would hold for nothing', () => {
    expect(code.length).toBeGreaterThan(50);
  });

  it('an import crosses a boundary of docs/architecture.md', () => {
    const typescript = code.filter((file) => !file.path.endsWith('.mjs'));
    expect(shown(boundaryBreaches(typescript))).toEqual([]);
  });

  it('a file or line is too long', () => {
    expect(shown(sizeBreaches(code, longFiles))).toEqual([]);
  });

  it('a folder or file has a name that says nothing', () => {
    expect(shown(nameBreaches(code))).toEqual([]);
  });

  it('a mark of unfinished work, a path of one machine or a registry stands in the tree', () => {
    expect(shown(wordBreaches(files))).toEqual([]);
  });

  it('a test does not run', () => {
    expect(shown(testModeBreaches(code))).toEqual([]);
  });

  it('two tests of one file have one title', () => {
    expect(shown(duplicateTitleBreaches(code))).toEqual([]);
  });

  it('a module has state of its own', () => {
    expect(shown(moduleStateBreaches(code, Object.keys(startedByName)))).toEqual([]);
  });

  it('an error code is unknown or unused', () => {
    expect(shown(errorCodeBreaches(code, Object.keys(errors), reservedCodes))).toEqual([]);
  });

  it('a file is dead', () => {
    const manifest = files.find((file) => file.path === 'package.json')?.text ?? '';
    const named = [...manifest.matchAll(/[\w./-]+\.(?:ts|mjs)\b/g)].map((match) =>
      match[0].replace(/^\.\//, ''),
    );
    const scripted = files.filter((file) => file.path.endsWith('.sh') || file.path === '.ci/run');
    const called = scripted.flatMap((file) =>
      [...file.text.matchAll(/[\w./-]+\.(?:ts|mjs)\b/g)].map((match) =>
        match[0].replace(/^\.\//, ''),
      ),
    );
    // The exceptions name files by their paths, which would count as reaching them.
    const dead = deadFileBreaches(
      code.filter(({ path }) => path !== 'test/tidy/exceptions.ts'),
      [...named, ...called, ...Object.keys(startedByName), 'vitest.config.ts'],
    );
    const unexpected = dead.filter((breach) => unreached[breach.path] === undefined);
    expect(shown(unexpected)).toEqual([]);
    const needless = Object.keys(unreached).filter(
      (path) => !dead.some((breach) => breach.path === path),
    );
    expect(needless).toEqual([]);
  });

  it('a link in the docs leads nowhere', () => {
    expect(shown(linkBreaches(files, new Set(paths)))).toEqual([]);
  });

  it('the docs name a command or script that does not exist', () => {
    const programs = {
      switchback: leavesOf(buildProgram(contextForDocs)).map(({ name }) => name),
      'switchback-agent': agentCommands.map(({ name }) => name),
    };
    expect(shown(commandBreaches(files, Object.keys(scripts), programs))).toEqual([]);
  });

  it('a command has no example or does not say what its JSON is', () => {
    const silent = leavesOf(buildProgram(contextForDocs)).filter(
      ({ command }) =>
        command.examples.length === 0 || command.jsonShape === '' || command.description() === '',
    );
    expect(silent.map(({ name }) => name)).toEqual([]);
  });

  it('a generated file is not what `npm run gen` makes of the sources', async () => {
    const stale: string[] = [];
    for (const [path, content] of await generatedFiles(files)) {
      const found = files.find((file) => file.path === path)?.text;
      if (found !== content) stale.push(path);
    }
    expect(stale).toEqual([]);
  });

  it('a required case of the failure and attack lists has no test', () => {
    const covered = caseMap(files);
    expect(
      required.filter(
        (number) => covered[number] === undefined && pendingCases[number] === undefined,
      ),
    ).toEqual([]);
  });

  it('an attack of the list has no test that asserts code, slot, state and report', () => {
    expect(unwitnessed(caseMap(code))).toEqual([]);
  });

  it('a case is said to be pending and has a test', () => {
    const covered = caseMap(files);
    expect(Object.keys(pendingCases).filter((number) => covered[number] !== undefined)).toEqual([]);
  });
});
