import { describe, expect, it } from 'vitest';
import { boundaryBreaches } from '#/test/tidy/boundaries.ts';
import { caseMap, numbersOf } from '#/test/tidy/cases.ts';
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
  titlesOf,
  wordBreaches,
} from '#/test/tidy/rules.ts';
import { importsOf, read } from '#/test/tidy/source.ts';

const file = (path: string, text: string) => ({ path, text });
const whats = (breaches: readonly { what: string }[]) => breaches.map((breach) => breach.what);

describe('reading source text', () => {
  it('imports in comments, strings and templates are not imports; real ones of every form are', () => {
    const text = [
      "import a from 'one';",
      "import type { B } from 'two';",
      "export { c } from 'three';",
      "export type { d } from 'four';",
      "import 'five';",
      "const e = await import('six');",
      'import {\n  f,\n  g,\n} from "seven";',
      "// import h from 'not1';",
      "/* import h from 'not2'; */",
      'const i = "import h from \'not3\'";',
      'const j = `\nimport h from "not4"\n${k ? `x` : "}"}`;',
      "const l = /['\"`]/.test(m) ? 1 : 2; // it's",
      "const n = createRequire(import.meta.url)('eight');",
      "const o = require('nine');",
      "command.require('not5'); requiredOption('not6');",
      "export * from 'ten';",
    ].join('\n');
    const found = importsOf(file('x.ts', text));
    expect(found.map((one) => one.specifier)).toEqual([
      'one',
      'two',
      'three',
      'four',
      'five',
      'six',
      'seven',
      'nine',
      'ten',
    ]);
    expect(found.filter((one) => one.isType).map((one) => one.specifier)).toEqual(['two', 'four']);
    expect(found.filter((one) => one.isDynamic).map((one) => one.specifier)).toEqual(['six']);
    expect(found[6]?.line).toBe(10);
  });

  it('text keeps its length and lines when strings and comments are blanked', () => {
    const text = "const a = 'x'; /* b\nc */ const d = `e${f}g`;\n";
    const { code } = read(text);
    expect(code).toHaveLength(text.length);
    expect(code.split('\n')).toHaveLength(3);
    expect(code).toContain('${f}'.slice(2, 3));
    expect(code).not.toContain('c */');
  });
});

describe('boundaries', () => {
  it.each([
    ['agent/core/machine.ts', "import fs from 'node:fs';"],
    ['agent/core/machine.ts', "import type { Clock } from '#/agent/ports.ts';"],
    ['agent/adapters/x.ts', "import { plan } from '#/control/core/plan.ts';"],
    ['control/core/plan.ts', "import { chunk } from '#/bundle/chunker.ts';"],
    ['control/http/server.ts', "import { step } from '#/agent/core/machine.ts';"],
    ['control/cli/x.ts', "import { open } from '#/control/store/sqlite.ts';"],
    ['protocol/api.ts', "import { x } from '#/bundle/manifest.ts';"],
    ['bundle/x.ts', "import fs from 'node:fs';"],
    ['agent/adapters/x.ts', "import http from 'node:http';"],
    ['agent/adapters/x.ts', "import { request } from 'undici';"],
    ['agent/adapters/x.ts', "import { open } from '../../protocol/ids.ts';"],
    ['agent/core/machine.ts', "import pino from 'pino';"],
    ['agent/adapters/x.ts', "import { open } from './state';"],
    ['agent/adapters/x.ts', "import lodash from 'lodash';"],
    ['elsewhere/x.ts', ''],
  ])('%s must not hold %j', (path, text) => {
    expect(boundaryBreaches([file(path, text)])).not.toEqual([]);
  });

  it.each([
    ['agent/core/machine.ts', "import { Problem } from '#/protocol/errors.ts';"],
    ['agent/adapters/x.ts', "import type { Dispatcher } from 'undici';"],
    ['agent/adapters/x.ts', "const { request } = await import('undici');"],
    ['control/cli/x.ts', "import { readFile } from 'node:fs/promises';"],
    ['protocol/api.ts', "import { id } from './ids.ts';"],
  ])('%s may hold %j', (path, text) => {
    expect(boundaryBreaches([file(path, text)])).toEqual([]);
  });
});

describe('house rules', () => {
  it('a file of 501 lines and a line of 201 columns', () => {
    expect(sizeBreaches([file('agent/x.ts', 'a\n'.repeat(501))])).toHaveLength(1);
    expect(sizeBreaches([file('agent/x.ts', `${'a'.repeat(201)}\n`)])).toHaveLength(1);
    expect(sizeBreaches([file('agent/x.ts', 'a\n'.repeat(500))])).toEqual([]);
  });

  it('a drawer instead of a name', () => {
    expect(
      nameBreaches([
        file('agent/utils/x.ts', ''),
        file('agent/helpers.ts', ''),
        file('test/unit/common.test.ts', ''),
      ]),
    ).toHaveLength(3);
    expect(nameBreaches([file('agent/library.ts', '')])).toEqual([]);
  });

  it('marks of unfinished work, paths of one machine, registries', () => {
    expect(wordBreaches([file('a.md', `see ${'TO'}DO here`)])).toHaveLength(1);
    expect(wordBreaches([file('a.sh', `cd /${'home'}/someone/project`)])).toHaveLength(1);
    expect(wordBreaches([file('a.json', `https://registry.${'npmjs'}.org/x`)])).toHaveLength(1);
    expect(
      wordBreaches([file('a.ts', "read('/etc/switchback/agent.toml'); // not ./home/x")]),
    ).toEqual([]);
  });

  it('a test that does not run; a condition is fine', () => {
    expect(
      testModeBreaches([
        file(
          'test/unit/x.test.ts',
          `it.${'only'}('x', f); describe.${'skip'}('y', g); x${'it'}('z', h);`,
        ),
      ]),
    ).toHaveLength(3);
    expect(
      testModeBreaches([file('test/unit/x.test.ts', `it.runIf(zsh)('x', f); // it.${'only'}`)]),
    ).toEqual([]);
  });

  it('two tests with one title', () => {
    expect(
      duplicateTitleBreaches([
        file('test/unit/x.test.ts', "it('a', f);\nit('b', f);\nit('a', g);"),
      ]),
    ).toHaveLength(1);
  });

  it('state of a module', () => {
    expect(
      moduleStateBreaches([
        file('agent/x.ts', 'let a = 1;\nexport let b;\nconst c = new Map<string, X>();\n'),
      ]),
    ).toHaveLength(3);
    expect(
      moduleStateBreaches([
        file('agent/x.ts', 'function f() {\n  let a = 1;\n}\nconst c = new Map([[1, 2]]);\n'),
      ]),
    ).toEqual([]);
  });

  it('an error code that is not in the table, is never used, or is reserved without need', () => {
    const source = file(
      'agent/x.ts',
      "throw new Problem('E_ONE', 'x'); throw new Problem('E_OTHER', 'x');",
    );
    expect(
      whats(
        errorCodeBreaches([source], ['E_ONE', 'E_TWO', 'E_LATER'], {
          E_LATER: 'why',
          E_ONE: 'why',
        }),
      ),
    ).toEqual([
      'E_OTHER is not in the error table',
      'E_TWO is used nowhere',
      'E_ONE is used now: it is reserved no more',
    ]);
  });

  it('a file that nothing reaches, and one that only tests reach', () => {
    const files = [
      file(
        'agent/main.ts',
        "import { a } from '#/agent/a.ts'; new Worker(new URL('./worker.ts', import.meta.url));",
      ),
      file('agent/a.ts', "const b = await import('./b.ts');"),
      file('agent/b.ts', ''),
      file('agent/worker.ts', ''),
      file('agent/tested.ts', ''),
      file('agent/dead.ts', ''),
      file('test/unit/t.test.ts', "import { t } from '#/agent/tested.ts';"),
      file('test/support/unused.ts', ''),
    ];
    expect(
      deadFileBreaches(files, ['agent/main.ts']).map((breach) => `${breach.path} ${breach.what}`),
    ).toEqual([
      'agent/tested.ts only tests reach it',
      'agent/dead.ts nothing reaches it',
      'test/support/unused.ts no test reaches it',
    ]);
  });

  it('a link that leads nowhere', () => {
    const page = file(
      'docs/a.md',
      '[x](b.md) [y](../README.md#z) [z](https://example.org) [f](specs/) [n](none.md)',
    );
    expect(
      whats(
        linkBreaches([page], new Set(['docs/a.md', 'docs/b.md', 'README.md', 'docs/specs/t.md'])),
      ),
    ).toEqual(['leads nowhere: none.md']);
  });

  it('a command or script in the docs that does not exist', () => {
    const page = file(
      'README.md',
      'npm run gen, npm run gone\n`switchback host ls`\n$ switchback host lost x\nswitchback pin web 1\nswitchback-agent status\nswitchback-agent lose\n',
    );
    expect(
      whats(
        commandBreaches([page], ['gen'], {
          switchback: ['host ls', 'pin'],
          'switchback-agent': ['status'],
        }),
      ),
    ).toEqual([
      'no such script: npm run gone',
      'no such command: $ switchback host lost',
      'no such command: switchback-agent lose',
    ]);
  });
});

describe('case numbers', () => {
  it('are read from the start of a title only', () => {
    expect(numbersOf('F31 power cut')).toEqual(['F31']);
    expect(numbersOf('C11, C12: a path')).toEqual(['C11', 'C12']);
    expect(numbersOf('A4 one key twice')).toEqual(['A04']);
    expect(numbersOf('after F31')).toEqual([]);
    expect(numbersOf('F99 no such case')).toEqual([]);
    expect(numbersOf('F31x')).toEqual([]);
  });

  it('rows of a table of tests count', () => {
    const table = file(
      'test/attack/x.test.ts',
      "it.each([['C01 one bit', 1], ['C02', 2]])('%s', f);\nit('F5 truncated', g);",
    );
    expect(Object.keys(caseMap([table]))).toEqual(['F5', 'C01', 'C02']);
    expect(titlesOf(table)).toHaveLength(2);
  });
});
