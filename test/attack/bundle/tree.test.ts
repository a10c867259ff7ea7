import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { checkTree, type TreeRules } from '#/bundle/tree-check.ts';
import { comparePaths, type TreeEntry } from '#/bundle/tree-entry.ts';
import { encodeTreeList, parseTreeList, TREE_MAX_ENTRIES } from '#/bundle/tree-list.ts';
import { checkTreePath } from '#/bundle/tree-path.ts';
import { codeOf } from '#/test/support/bundle/code-of.ts';
import { directory, file, hardlink, symlink } from '#/test/support/bundle/sample-index.ts';

/** The code with which a listing of these entries is refused by the reader; entries are taken as they stand. */
const refused = (entries: readonly TreeEntry[], rules: TreeRules = {}): string =>
  codeOf(() => parseTreeList(encodeTreeList(entries), rules));

/** Bytes of a listing of one file with the byte of its kind changed. */
const ofKind = (kind: number): Uint8Array => {
  const bytes = Uint8Array.from(encodeTreeList([file('a')]));
  bytes[20] = kind;
  return bytes;
};

describe('paths', () => {
  it.each([
    ['the parent directory', '../x'],
    ['the parent directory inside', 'a/../x'],
    ['the parent directory at the end', 'a/..'],
    ['an absolute path', '/etc/passwd'],
    ['an empty component', 'a//b'],
    ['a dot', '.'],
    ['a dot component', 'a/./b'],
    ['a slash at the end', 'a/'],
    ['nothing', ''],
    ['NUL', 'a\0b'],
    ['a newline', 'a\nb'],
    ['an escape sequence', 'a\u001b[2Jb'],
    ['a backslash', 'a\\b'],
    ['a backslash that climbs', '..\\..\\x'],
    ['a trailing dot', 'a.'],
    ['a trailing dot inside', 'a./b'],
    ['a trailing space', 'a /b'],
    ['a leading space', 'a/ b'],
    ['a fraction slash', 'a\u2044b'],
    ['a division slash', 'a\u2215b'],
    ['a full-width slash', 'a\uff0fb'],
    ['full-width dots', '\uff0e\uff0e/x'],
    ['one-dot leaders', '\u2024\u2024/x'],
    ['a two-dot leader', '\u2025/x'],
    ['an ellipsis', '\u2026'],
    ['a small full stop', '\ufe52\ufe52/x'],
    ['a full-width backslash', 'a\uff3cb'],
    ['a zero-width space', 'a\u200bb'],
    ['a right-to-left override', 'a\u202egpj.exe'],
    ['a byte order mark', '\ufeffa'],
    ['a no-break space', 'a\u00a0b'],
    ['a decomposed letter', 'e\u0301'],
    ['a lone surrogate', 'a\ud800b'],
    ['5,000 bytes', 'a'.repeat(5000)],
    ['a component of 256 bytes', 'a'.repeat(256)],
    ['a component of 256 bytes in 128 letters', 'é'.repeat(128)],
    ['65 levels', Array.from({ length: 65 }, () => 'a').join('/')],
    ['1,025 bytes in short components', Array.from({ length: 20 }, () => 'b'.repeat(60)).join('/')],
  ])('C11 refuses a path with %s', (_, path) => {
    expect(codeOf(() => checkTreePath(path))).toBe('E_PATH');
  });

  it.each([
    'usr/lib/systemd/system/system-systemd\\x2dcryptsetup.slice',
    'usr/share/ca-certificates/NetLock_Arany_=Class_Gold=_Főtanúsítvány.crt',
    'usr/bin/[',
    '.hidden/..data/...x',
    'a b/c d',
    '日本語/ファイル',
    'x'.repeat(255),
  ])('lets the ordinary path %s pass', (path) => {
    expect(codeOf(() => checkTreePath(path))).toBe('nothing');
  });

  it('C11 a path that passes stays inside its slot whatever it is', () => {
    const hostile = fc.string({
      unit: fc.constantFrom('.', '/', '\\', 'a', ' ', '\0', '\u2024', '\uff0f', 'é', '~'),
      maxLength: 12,
    });
    fc.assert(
      fc.property(hostile, (path) => {
        if (codeOf(() => checkTreePath(path)) !== 'nothing') return;
        const url = new URL(path.replaceAll('%', '%25'), 'file:///slot/');
        expect(decodeURI(url.pathname).startsWith('/slot/')).toBe(true);
        for (const component of path.split('/')) expect(['', '.', '..']).not.toContain(component);
      }),
      { numRuns: 2000 },
    );
  });

  it('C11 a long look and a short one agree on every path', () => {
    const unit = fc.constantFrom('.', '/', '\\', 'a', '[', ']', '-', '~', '0', ' ', 'Z', '!');
    // Padded, a path is too long for the short look; what is wrong with it stays wrong.
    const padding = Array.from({ length: 33 }, () => 'pad').join('/');
    expect(padding.length).toBeGreaterThan(127);
    fc.assert(
      fc.property(fc.string({ unit, minLength: 1, maxLength: 12 }), (path) => {
        const short = codeOf(() => checkTreePath(path));
        expect(codeOf(() => checkTreePath(`${path}/${padding}/longer`))).toBe(short);
      }),
      { numRuns: 3000 },
    );
  });

  it('puts paths in the order of their bytes, beyond the basic plane too', () => {
    const texts = fc.string({
      unit: fc.constantFrom('a', 'b', '/', 'é', '\ud7ff', '\ue000', '\uffee', '😀'),
      maxLength: 5,
    });
    fc.assert(
      fc.property(texts, texts, (a, b) => {
        const order = Buffer.compare(Buffer.from(a), Buffer.from(b));
        expect(Math.sign(comparePaths(a, b))).toBe(order);
      }),
      { numRuns: 2000 },
    );
  });

  it('C11 refuses a path that is not UTF-8 in the listing itself', () => {
    const bytes = Uint8Array.from(encodeTreeList([file('abc')]));
    const at = Buffer.from(bytes).indexOf('abc');
    bytes[at] = 0xff;
    expect(codeOf(() => parseTreeList(bytes, {}))).toBe('E_PATH');
  });
});

describe('links', () => {
  it.each([
    ['names the parent of the slot', [symlink('a', '..')]],
    ['climbs out in steps', [directory('d'), symlink('d/a', '../../etc')]],
    ['is absolute', [symlink('a', '/etc/passwd')]],
    [
      'climbs out through another link',
      [directory('d'), directory('d/e'), symlink('in', 'd/e'), symlink('z', 'in/../../../x')],
    ],
    [
      'climbs out because a component is a link upward',
      [directory('d'), symlink('d/up', '..'), symlink('z', 'd/up/../x')],
    ],
    ['has NUL in its text', [symlink('a', 'b\0c')]],
    ['has an empty text', [symlink('a', '')]],
    ['has a text of 5,000 bytes', [symlink('a', 'x'.repeat(5000))]],
    ['has a look-alike of a slash in its text', [symlink('a', 'b\u2215c')]],
  ] as const)('C12 F15 refuses a link that %s', (_, entries) => {
    expect(refused(entries)).toBe('E_PATH');
  });

  it('C12 F15 refuses a file that is written through a link', () => {
    expect(refused([symlink('a', 'b'), file('a/evil')])).toBe('E_PATH');
    expect(refused([symlink('a', 'b'), file('a/evil')], { allowAbsoluteLinks: true })).toBe(
      'E_PATH',
    );
  });

  it('C12 F15 refuses an absolute link hidden behind a relative one', () => {
    const entries = [symlink('a', '/'), symlink('b', 'a/../etc')];
    expect(refused(entries)).toBe('E_PATH');
    expect(refused(entries, { allowAbsoluteLinks: true })).toBe('E_PATH');
  });

  it('allows absolute links inside the tree only where the manifest says so', () => {
    const entries = [directory('etc'), symlink('etc/mtab', '/proc/self/mounts')];
    expect(refused(entries)).toBe('E_PATH');
    expect(refused(entries, { allowAbsoluteLinks: true })).toBe('nothing');
  });

  it('allows links that stay inside, dangle inside or loop', () => {
    const entries = [
      directory('bin'),
      symlink('bin/node', '../lib/node'),
      directory('lib'),
      symlink('lib/again', '../bin/../lib/nothing-yet'),
      symlink('loop', 'loop'),
    ];
    expect(refused(entries)).toBe('nothing');
  });

  it('C12 F15 refuses a hard link to anything but an earlier file of the listing', () => {
    expect(refused([file('a'), hardlink('b', 'a')])).toBe('nothing');
    const forward = Uint8Array.from(encodeTreeList([file('a'), hardlink('b', 'a')]));
    for (const target of [1, 2, 0xffff_ffff]) {
      new DataView(forward.buffer).setUint32(forward.byteLength - 4, target, true);
      expect(codeOf(() => parseTreeList(forward, {}))).toBe('E_PATH');
    }
    const onDirectory = Uint8Array.from(
      encodeTreeList([directory('a'), file('b'), hardlink('c', 'b')]),
    );
    new DataView(onDirectory.buffer).setUint32(onDirectory.byteLength - 4, 0, true);
    expect(codeOf(() => parseTreeList(onDirectory, {}))).toBe('E_PATH');
  });
});

describe('kinds and modes', () => {
  it.each([4, 5, 6, 7, 255])(
    'C12 F15 refuses an entry of kind %i: devices, pipes and sockets have no form',
    (kind) => {
      expect(codeOf(() => parseTreeList(ofKind(kind), {}))).toBe('E_MODE');
    },
  );

  it.each([0o4755, 0o2755, 0o1777, 0o6755])(
    'C12 F15 refuses mode %i unless the manifest allows it',
    (mode) => {
      expect(refused([file('a', 'a', mode)])).toBe('E_MODE');
      expect(refused([directory('a', mode)])).toBe('E_MODE');
      expect(refused([file('a', 'a', mode)], { allowSetuid: true })).toBe('nothing');
    },
  );

  it('C12 refuses the bits of a file type in a mode, with any permission', () => {
    expect(refused([file('a', 'a', 0o100644)], { allowSetuid: true })).toBe('E_MODE');
  });
});

describe('the listing as a whole', () => {
  it('C15 F15 refuses one path twice', () => {
    expect(refused([file('a', '1'), file('a', '2')])).toBe('E_PATH');
    expect(refused([file('a', '1'), file('a', '2')], { allowCaseCollisions: true })).toBe('E_PATH');
  });

  it('C15 F15 refuses a file that is used as a directory', () => {
    expect(refused([file('a'), file('a/b')])).toBe('E_PATH');
  });

  it('C15 F15 refuses a file and a directory of one name', () => {
    expect(refused([file('a'), directory('a')])).toBe('E_PATH');
    expect(refused([directory('a'), file('a')])).toBe('E_PATH');
  });

  it('C15 refuses an entry whose parent is not listed', () => {
    expect(refused([file('a/b')])).toBe('E_PATH');
  });

  it('C15 refuses entries out of order, which could hide a second one', () => {
    expect(refused([file('b'), file('a')])).toBe('E_PATH');
  });

  it.each([
    ['Readme', 'readme'],
    ['STRASSE', 'straße'],
    ['É', 'é'],
    ['K', '\u212a'.normalize('NFC').toLowerCase()],
  ])(
    'C15 F15 refuses %s beside %s, which collide on file systems that ignore case',
    (one, other) => {
      const entries = [file(one), file(other)].toSorted((a, b) => comparePaths(a.path, b.path));
      expect(refused(entries)).toBe('E_PATH');
      expect(refused(entries, { allowCaseCollisions: true })).toBe('nothing');
    },
  );

  it('C13 F15 refuses 10^7 entries by their count alone', () => {
    const bytes = Uint8Array.from(encodeTreeList([file('a')]));
    new DataView(bytes.buffer).setUint32(12, 10_000_000, true);
    expect(codeOf(() => parseTreeList(bytes, {}))).toBe('E_SIZE');
  });

  it('C13 refuses a count that its bytes cannot hold before it allocates', () => {
    const bytes = Uint8Array.from(encodeTreeList([file('a')]));
    new DataView(bytes.buffer).setUint32(12, TREE_MAX_ENTRIES, true);
    expect(codeOf(() => parseTreeList(bytes, {}))).toBe('E_SCHEMA');
  });

  it('F15 refuses extended attributes, of which a bomb could be made', () => {
    const bytes = Uint8Array.from(encodeTreeList([file('a')]));
    new DataView(bytes.buffer).setUint32(16, 1_000_000, true);
    expect(codeOf(() => parseTreeList(bytes, {}))).toBe('E_SCHEMA');
  });
});

describe('the encoding', () => {
  const component = fc.stringMatching(/^[a-z0-9_é-]{1,8}$/);
  const tree = fc
    .uniqueArray(fc.tuple(component, component, fc.nat(3)), {
      maxLength: 12,
      selector: ([a, b]) => `${a}/${b}`,
    })
    .map((items) => {
      const byPath = new Map<string, TreeEntry>();
      for (const [top, below, kind] of items) {
        byPath.set(top, directory(top));
        const path = `${top}/${below}`;
        byPath.set(
          path,
          kind === 0 ? directory(path) : kind === 1 ? symlink(path, '../x') : file(path),
        );
      }
      return [...byPath.values()].toSorted((a, b) => comparePaths(a.path, b.path));
    });

  it('gives back what was encoded', () => {
    fc.assert(
      fc.property(tree, (entries) => {
        expect(parseTreeList(encodeTreeList(entries), {})).toEqual(entries);
      }),
      { numRuns: 200 },
    );
  });

  it('a listing with bytes behind its end is refused', () => {
    const bytes = Buffer.concat([encodeTreeList([file('a')]), Buffer.from([0])]);
    expect(codeOf(() => parseTreeList(bytes, {}))).toBe('E_SCHEMA');
  });

  it('a second encoding of the same paths is refused', () => {
    const bytes = Buffer.from(encodeTreeList([file('ab'), file('ac')]));
    const usual = Buffer.from([0, 0, 2, 0, 1, 0, 1, 0, ...Buffer.from('abc')]);
    const other = Buffer.from([0, 0, 2, 0, 0, 0, 2, 0, ...Buffer.from('abac')]);
    const at = bytes.indexOf(usual);
    expect(at).toBeGreaterThan(0);
    const changed = Buffer.concat([
      bytes.subarray(0, at),
      other,
      bytes.subarray(at + usual.byteLength),
    ]);
    expect(codeOf(() => parseTreeList(changed, {}))).toBe('E_SCHEMA');
  });

  it('F15 any damaged byte is refused with a code or gives a listing that passes every check', () => {
    const bytes = encodeTreeList([
      directory('bin'),
      file('bin/node', 'node', 0o755),
      hardlink('bin/nodejs', 'bin/node'),
      symlink('bin/npm', '../lib/npm'),
      directory('lib'),
      file('lib/npm'),
    ]);
    fc.assert(
      fc.property(fc.nat(bytes.byteLength - 1), fc.integer({ min: 1, max: 255 }), (at, flip) => {
        const damaged = Uint8Array.from(bytes);
        damaged[at] = (damaged[at] ?? 0) ^ flip;
        let entries: readonly TreeEntry[] = [];
        const code = codeOf(() => {
          entries = parseTreeList(damaged, {});
        });
        if (code !== 'nothing') return;
        expect(codeOf(() => checkTree(entries, {}))).toBe('nothing');
        // One value has one encoding: what was accepted encodes to exactly these bytes.
        expect(Buffer.compare(encodeTreeList(entries), damaged)).toBe(0);
      }),
      { numRuns: 3000 },
    );
  });

  it('F5 any truncated listing is refused with a code', () => {
    const bytes = encodeTreeList([directory('a'), file('a/b'), symlink('a/c', 'b')]);
    for (let size = 0; size < bytes.byteLength; size += 1) {
      expect(codeOf(() => parseTreeList(bytes.subarray(0, size), {}))).not.toBe('nothing');
    }
  });
});
