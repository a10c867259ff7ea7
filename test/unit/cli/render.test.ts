import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { renderFields, renderTable, type TableStyle } from '#/control/cli/render/table.ts';
import { exitCodeOf, renderFailure } from '#/control/cli/render/failure.ts';
import { createScreen } from '#/control/cli/render/screen.ts';
import {
  cut,
  displayWidth,
  formatAgo,
  formatBytes,
  formatDuration,
  harmless,
  painter,
  wantsColour,
} from '#/control/cli/render/text.ts';
import { causesOf, failureRecord } from '#/protocol/failure-record.ts';
import { errors, Problem } from '#/protocol/errors.ts';

const plain: TableStyle = { columns: null, paint: (_, text) => text };
const columns = [
  { title: 'HOST', value: (row: readonly string[]) => row[0] ?? '' },
  { title: 'N', value: (row: readonly string[]) => row[1] ?? '', align: 'right' as const },
  { title: 'WHY', value: (row: readonly string[]) => row[2] ?? '', flexible: true },
];

describe('tables', () => {
  it('columns line up, numbers to the right, no blanks at line ends', () => {
    const text = renderTable(
      [
        ['web-1', '7', ''],
        ['db', '1234', 'waits'],
      ],
      columns,
      plain,
      'none',
    );
    expect(text).toBe('HOST      N  WHY\nweb-1     7\ndb     1234  waits\n');
  });

  it('nothing is cut where there is no terminal', () => {
    const long = 'x'.repeat(500);
    expect(renderTable([['a', '1', long]], columns, plain, 'none')).toContain(long);
  });

  it('a narrow terminal cuts the flexible column and no other', () => {
    const text = renderTable(
      [['web-1', '7', 'y'.repeat(200)]],
      columns,
      { ...plain, columns: 40 },
      'none',
    );
    for (const line of text.trimEnd().split('\n'))
      expect(displayWidth(line)).toBeLessThanOrEqual(40);
    expect(text).toContain('web-1');
    expect(text).toContain('…');
  });

  it('no rows say so, with what to do', () => {
    expect(renderTable([], columns, plain, 'no hosts yet')).toBe('no hosts yet\n');
  });

  it('a hostile host name cannot move the cursor, change colours or begin a line', () => {
    const hostile = 'a\u001b[2J\u001b]0;owned\u0007\r\nb\u202etxt';
    const text = renderTable([[hostile, '1', '']], columns, plain, 'none');
    expect(text.split('\n')).toHaveLength(3);
    // oxlint-disable-next-line no-control-regex
    expect(text).not.toMatch(/[\u001b\u0007\r\u202e]/);
    expect(renderFields([['name', hostile]], plain).split('\n')).toHaveLength(2);
  });

  it('wide and combining characters are measured in columns', () => {
    expect(displayWidth('漢字')).toBe(4);
    expect(displayWidth('e\u0301')).toBe(1);
    expect(cut('漢字漢字', 5)).toBe('漢字…');
    fc.assert(
      fc.property(fc.string({ unit: 'binary' }), fc.nat(20), (text, width) => {
        expect(displayWidth(cut(harmless(text), width))).toBeLessThanOrEqual(width);
      }),
    );
  });
});

describe('colour', () => {
  it('only on a terminal, never with NO_COLOR, never on a dumb one', () => {
    expect(wantsColour({}, true)).toBe(true);
    expect(wantsColour({}, false)).toBe(false);
    expect(wantsColour({ NO_COLOR: '1' }, true)).toBe(false);
    expect(wantsColour({ NO_COLOR: '' }, true)).toBe(true);
    expect(wantsColour({ TERM: 'dumb' }, true)).toBe(false);
    expect(wantsColour({ NO_COLOR: '1', FORCE_COLOR: '1' }, true)).toBe(false);
    expect(wantsColour({ FORCE_COLOR: '1' }, false)).toBe(true);
  });

  it('a painter without colour changes nothing', () => {
    expect(painter(false)('bad', 'x')).toBe('x');
    expect(painter(true)('bad', 'x')).toBe('\u001b[31mx\u001b[39m');
  });
});

describe('units', () => {
  it.each([
    [0, '0 B'],
    [999, '999 B'],
    [1000, '1.0 KiB'],
    [1536, '1.5 KiB'],
    [5 * 2 ** 30, '5.0 GiB'],
    [150 * 2 ** 20, '150 MiB'],
    [1023 * 2 ** 20, '1.0 GiB'],
  ])('%i bytes read %s', (bytes, text) => {
    expect(formatBytes(bytes)).toBe(text);
  });

  it.each([
    [120, '120ms'],
    [59_400, '59s'],
    [59_600, '1m'],
    [90_000, '1m 30s'],
    [3_600_000, '1h'],
    [90_000_000, '1d 1h'],
  ])('%i ms reads %s', (ms, text) => {
    expect(formatDuration(ms)).toBe(text);
  });

  it('a host clock that is ahead does not give a negative age', () => {
    expect(formatAgo(10_000, 5000)).toBe('now');
    expect(formatAgo(null, 5000)).toBe('never');
  });
});

describe('failures', () => {
  const problem = new Problem(
    'E_NETWORK',
    'GET /x: no connection',
    { requestId: 'q1' },
    {
      cause: new Error('connect failed', { cause: new Error('ECONNREFUSED') }),
    },
  );

  it('code, message, every cause and what to do next are told', () => {
    expect(renderFailure(problem, (_, text) => text)).toBe(
      'E_NETWORK: GET /x: no connection\n  caused by: connect failed\n  caused by: ECONNREFUSED\n' +
        `  request: q1\n  next: ${errors.E_NETWORK.act}\n`,
    );
    expect(failureRecord(problem)).toMatchObject({
      code: 'E_NETWORK',
      causes: ['connect failed', 'ECONNREFUSED'],
      exit: 75,
    });
  });

  it('exit codes come from the error table, a bug is 1', () => {
    for (const code of Object.keys(errors) as (keyof typeof errors)[]) {
      expect(exitCodeOf(new Problem(code, 'x'))).toBe(errors[code].exit);
    }
    expect(exitCodeOf(new TypeError('x'))).toBe(1);
    expect(renderFailure(new TypeError('x is not a function'), (_, text) => text)).toMatch(
      /^bug: TypeError: x is not a function\n\s+at /,
    );
  });

  it('a cycle of causes ends', () => {
    const error = new Error('a');
    error.cause = error;
    expect(causesOf(error).length).toBeLessThanOrEqual(8);
  });
});

describe('screen', () => {
  const screenOf = (rows: number) => {
    const written: string[] = [];
    const out = {
      isTty: true,
      columns: 80,
      rows,
      write: (text: string) => void written.push(text),
    };
    return { written, screen: createScreen(out) };
  };

  it('a shorter frame leaves nothing of the longer one before it', () => {
    const { written, screen } = screenOf(24);
    screen.draw('1\n2\n3\n');
    screen.draw('4\n');
    screen.end();
    expect(written[1]).toBe('\u001b[3A\r4\u001b[K\n\u001b[J');
  });

  it('a frame that is taller than the terminal scrolls it and leaves remains above', () => {
    const { written, screen } = screenOf(5);
    screen.draw('1\n2\n3\n4\n5\n6\n7\n');
    screen.draw('1\n2\n3\n4\n5\n6\n7\n');
    expect(written[1]?.startsWith('\u001b[4A')).toBe(true);
  });

  it('the terminal is not given back: no cursor, no wrapping', () => {
    const { written, screen } = screenOf(24);
    screen.draw('1\n');
    screen.end();
    screen.end();
    expect(written[0]?.startsWith('\u001b[?25l\u001b[?7l')).toBe(true);
    expect(written.slice(1)).toEqual(['\u001b[?7h\u001b[?25h']);
  });
});
