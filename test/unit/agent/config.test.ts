import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { readFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { defaultSettings, loadSettings, localChecks, settingsFrom } from '#/agent/config.ts';
import { configReference } from '#/agent/config/reference.ts';
import { fieldsOf, showRows } from '#/agent/config/show.ts';

const from = (...texts: string[]) =>
  settingsFrom(texts.map((text, at) => ({ file: `/etc/${at + 1}0.toml`, text })));

let base = '';
beforeEach(() => {
  base = mkdtempSync(join(tmpdir(), 'switchback-config-'));
});
afterEach(() => rmSync(base, { recursive: true, force: true }));

describe('files', () => {
  const directories = (): string[] => ['usr', 'etc', 'run'].map((name) => join(base, name));
  const put = (directory: string, file: string, text: string): void => {
    mkdirSync(join(base, directory), { recursive: true });
    writeFileSync(join(base, directory, file), text);
  };

  it('no directory is there: all defaults', () => {
    expect(loadSettings(null, directories())).toMatchObject({
      files: [],
      settings: defaultSettings(),
    });
  });

  it('two agents on one machine: the socket follows the run directory, unless it is named', () => {
    const run = '[state]\nrun_directory = "/run/two"';
    expect(from(run).settings.local.socket).toBe('/run/two/agent.sock');
    expect(from(run, '[local]\nsocket = "/s"').settings.local.socket).toBe('/s');
    expect(defaultSettings().local.socket).toBe('/run/switchback/agent.sock');
  });

  it('files count in the order of their names, over all directories', () => {
    put('run', '10-a.toml', '[slots]\nkeep = 3');
    put('usr', '20-b.toml', '[slots]\nkeep = 4\nroot = "/srv"');
    const { settings, files } = loadSettings(null, directories());
    expect(settings.slots).toMatchObject({ keep: 4, root: '/srv' });
    expect(files).toEqual([join(base, 'run/10-a.toml'), join(base, 'usr/20-b.toml')]);
  });

  it('a file of a later directory takes the place of one of the same name', () => {
    put('usr', '10.toml', '[slots]\nkeep = 3\nroot = "/srv"');
    put('etc', '10.toml', '[slots]\nkeep = 5');
    expect(loadSettings(null, directories()).settings.slots).toMatchObject({
      keep: 5,
      root: '/opt/switchback',
    });
  });

  it('a link to /dev/null takes a file of the package out', () => {
    put('usr', '10.toml', '[slots]\nkeep = 3');
    mkdirSync(join(base, 'etc'));
    symlinkSync('/dev/null', join(base, 'etc', '10.toml'));
    expect(loadSettings(null, directories()).files).toEqual([]);
  });

  it('other names than *.toml, and hidden ones, are no settings', () => {
    put('etc', '10.toml.bak', 'rubbish');
    put('etc', '.hidden.toml', 'rubbish');
    put('etc', 'README', 'rubbish');
    expect(loadSettings(null, directories()).files).toEqual([]);
  });

  it('--config names one file, or one directory, and nothing else counts', () => {
    put('etc', '10.toml', '[slots]\nkeep = 3');
    put('own', 'a.toml', '[slots]\nkeep = 7');
    expect(loadSettings(join(base, 'own'), directories()).settings.slots.keep).toBe(7);
    expect(loadSettings(join(base, 'own/a.toml'), directories()).settings.slots.keep).toBe(7);
    expect(() => loadSettings(join(base, 'missing'), directories())).toThrow(
      expect.objectContaining({ code: 'E_CONFIG' }),
    );
  });

  it('a link that leads nowhere, a directory, and a huge file are E_CONFIG, not defaults', () => {
    mkdirSync(join(base, 'etc'));
    symlinkSync(join(base, 'gone'), join(base, 'etc', '10.toml'));
    expect(() => loadSettings(null, directories())).toThrow(/10\.toml: link leads nowhere/);
    rmSync(join(base, 'etc'), { recursive: true });
    mkdirSync(join(base, 'etc', '10.toml'), { recursive: true });
    expect(() => loadSettings(null, directories())).toThrow(/10\.toml: not a regular file/);
    rmSync(join(base, 'etc'), { recursive: true });
    put('etc', '10.toml', '#'.repeat(300_000));
    expect(() => loadSettings(null, directories())).toThrow(/300000 bytes, at most/);
  });
});

describe('merging', () => {
  it('tables merge key by key, lists are replaced as a whole', () => {
    const { settings, origins } = from(
      '[control]\nurls = ["https://a", "https://b"]\nconnect_timeout_ms = 500',
      '[control]\nurls = ["https://c"]',
    );
    expect(settings.control).toMatchObject({ urls: ['https://c'], connectTimeoutMs: 500 });
    expect(origins.get('control.urls')?.file).toBe('/etc/20.toml');
    expect(origins.get('control.connect_timeout_ms')?.file).toBe('/etc/10.toml');
    expect(origins.get('control.body_timeout_ms')).toBeUndefined();
  });

  it('windows and checks are added, changed and taken out by name', () => {
    const { settings } = from(
      '[window.a]\ncron = "0 1 * * *"\nduration_ms = 60000\n[window.b]\ncron = "0 2 * * *"\nduration_ms = 60000',
      '[window.a]\nenabled = false\n[window.b]\nzone = "Europe/Berlin"',
    );
    expect(settings.window['a']?.enabled).toBe(false);
    expect(settings.window['b']).toMatchObject({ cron: '0 2 * * *', zone: 'Europe/Berlin' });
  });

  it('variables of the environment keep their names', () => {
    expect(from('[activation.environment]\nMY_Var = "x"').settings.activation.environment).toEqual({
      MY_Var: 'x',
    });
  });
});

describe('wrong settings are refused with file and key', () => {
  it.each([
    ['[poll]\ninterval = 3', '/etc/10.toml: unknown key poll.interval (did you mean interval_ms?)'],
    [
      '[poll]\nintervalMs = 3',
      '/etc/10.toml: unknown key poll.intervalMs (did you mean interval_ms?)',
    ],
    ['[pol]\nx = 1', '/etc/10.toml: unknown key pol (did you mean poll?)'],
    ['[check.a]\nkind = "tcp"\nport = 1\nprt = 2', '/etc/10.toml: unknown key check.a.prt'],
    ['[poll]\ninterval_ms = 3', '/etc/10.toml: poll.interval_ms: expected >=200 but received 3'],
    [
      '[poll]\ninterval_ms = "5s"',
      '/etc/10.toml: poll.interval_ms: expected number but received "5s"',
    ],
    ['[poll]\ninterval_ms = 1e300', '/etc/10.toml: poll.interval_ms:'],
    ['poll = 3', '/etc/10.toml: poll:'],
    ['[state]\ndirectory = "relative"', '/etc/10.toml: state.directory: expected an absolute path'],
    [
      '[control]\nurls = ["https://user@host"]',
      '/etc/10.toml: control.urls.0: expected http(s)://host[:port] without a path',
    ],
    ['[control]\nurls = ["ftp://host"]', '/etc/10.toml: control.urls.0:'],
    [
      '[metrics]\nlisten = "0.0.0.0:9"',
      '/etc/10.toml: metrics.listen: expected unix:/path, 127.0.0.1:port, [::1]:port, or nothing',
    ],
    ['[window.a]\ncron = "* * * * *"', '/etc/10.toml: window.a.duration_ms:'],
    [
      '[window.a]\ncron = "* * * * *"\nduration_ms = 60000\nzone = "Mars/Base"',
      '/etc/10.toml: window.a.zone: "Mars/Base" is not a known time zone',
    ],
    ['[check.a]\nkind = "http"', '/etc/10.toml: check.a.url:'],
    ['[check.a]\nkind = "ping"', '/etc/10.toml: check.a.kind:'],
    ['[activation]\nkind = "units"', '/etc/10.toml: activation.units: is needed with kind "units"'],
    [
      '[activation]\nkind = "process"',
      '/etc/10.toml: activation.start: is needed with kind "process"',
    ],
    ['[activation.environment]\n"A=B" = "x"', '/etc/10.toml: activation.environment'],
    [
      '[poll]\nmin_interval_ms = 5000\nmax_interval_ms = 2000',
      '/etc/10.toml: poll.min_interval_ms: 5000 is above max_interval_ms 2000',
    ],
    [
      '[guard]\nheartbeat_lost_ms = 2000',
      '/etc/10.toml: guard.heartbeat_lost_ms: expected at least three times heartbeat_interval_ms',
    ],
    ['[poll\n', '/etc/10.toml:1:'],
    ['[poll]\ninterval_ms = 300\ninterval_ms = 400', '/etc/10.toml:3:'],
    ['["__proto__"]\nx = 1', '/etc/10.toml: unknown key __proto__'],
  ])('%j', (text, message) => {
    expect(() => from(text)).toThrow(expect.objectContaining({ code: 'E_CONFIG' }));
    expect(() => from(text)).toThrow(message);
  });

  it('the file that is named is the one that holds the key, not the last one', () => {
    expect(() => from('[slots]\nkeep = 99', '[poll]\ninterval_ms = 500')).toThrow(
      '/etc/10.toml: slots.keep',
    );
  });
});

describe('local checks', () => {
  it('get the defaults of [probe], and those that are taken out are left out', () => {
    const { settings } = from(
      '[probe]\ntimeout_ms = 700\n[check.b]\nkind = "tcp"\nport = 22\n[check.a]\nkind = "exec"\nargv = ["/bin/true"]\nfailures_allowed = 9\n[check.c]\nkind = "file"\npath = "/x"\nenabled = false',
    );
    expect(localChecks(settings)).toEqual([
      {
        name: 'a',
        kind: 'exec',
        argv: ['/bin/true'],
        required: true,
        baseline: 'not-worse',
        timeoutMs: 700,
        intervalMs: 5000,
        successesNeeded: 3,
        failuresAllowed: 9,
        startAfterMs: 0,
      },
      expect.objectContaining({ name: 'b', kind: 'tcp', host: '127.0.0.1', port: 22 }),
    ]);
  });
});

describe('shown settings', () => {
  it('every key has its value and its origin', () => {
    const loaded = from('[slots]\nkeep = 5\n[check.my-check]\nkind = "tcp"\nport = 1');
    expect(fieldsOf(loaded)).toContainEqual({ key: 'slots.keep', value: 5, file: '/etc/10.toml' });
    expect(fieldsOf(loaded)).toContainEqual({
      key: 'poll.interval_ms',
      value: 300_000,
      file: null,
    });
    expect(showRows(loaded, true)).toContain('check.my-check.port = 1  # /etc/10.toml\n');
    expect(showRows(loaded, true)).toContain('poll.interval_ms = 300000  # default\n');
  });
});

describe('reference page', () => {
  it('is the one that is checked in', () => {
    const path = join(import.meta.dirname, '../../../docs/reference/config.md');
    expect(readFileSync(path, 'utf8')).toBe(configReference());
  });
  it('has every key with its meaning', () => {
    for (const { key } of fieldsOf(settingsFrom([])))
      if (!/^(?:window|check)/.test(key))
        expect(configReference()).toContain(`\`${key.split('.').at(-1)}\``);
    for (const row of configReference()
      .split('\n')
      .filter((line) => line.startsWith('| `')))
      expect(row).not.toMatch(/\|\s+\|$/);
  });
});
