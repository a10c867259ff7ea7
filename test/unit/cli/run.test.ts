import { describe, expect, it } from 'vitest';
import { type CliContext, contextForDocs } from '#/control/cli/context.ts';
import { run } from '#/control/cli/run.ts';

/** One command line without a process: its exit code and what it wrote. */
async function typed(line: string): Promise<{ code: number; out: string; err: string }> {
  const [out, err]: string[][] = [[], []];
  const context: CliContext = {
    ...contextForDocs,
    out: { ...contextForDocs.out, write: (text) => out?.push(text) },
    err: { ...contextForDocs.err, write: (text) => err?.push(text) },
    signal: new AbortController().signal,
  };
  const code = await run(line.split(' '), context);
  return { code, out: out?.join('') ?? '', err: err?.join('') ?? '' };
}

describe('what people type out of habit', () => {
  it('the version is asked for with a dash', async () => {
    for (const line of ['--version', '-V']) {
      const { code, out } = await typed(line);
      expect([line, code, out]).toEqual([line, 0, (await typed('version')).out]);
    }
    expect(JSON.parse((await typed('--version --json')).out)).toHaveProperty('version');
  });

  it('`help` and `help COMMAND` are taken for a typing error of `halt`', async () => {
    expect(await typed('help')).toEqual(await typed('--help'));
    const { code, out, err } = await typed('help host why');
    expect([code, err]).toEqual([0, '']);
    expect(out).toContain('Usage: switchback host why [options] <host>');
  });
});

describe('wrong usage', () => {
  it('does not say how the command is called', async () => {
    for (const [line, usage] of [
      ['host why', 'host why [options] <host>'],
      ['pin web 1.0.0', 'pin [options] <target> <release>'],
      ['host why web-1 --nonsense', 'host why [options] <host>'],
      ['group list', 'group [options] [command]'],
    ] as const) {
      const { code, err } = await typed(line);
      expect([line, code]).toEqual([line, 2]);
      expect(err).toContain(`; usage: switchback ${usage}\n`);
    }
  });

  it('a suggestion arrives with a line break that is spelled out', async () => {
    expect((await typed('rolout')).err).toContain("'rolout' (Did you mean rollout?); usage");
  });
});
