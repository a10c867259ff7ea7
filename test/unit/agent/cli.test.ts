import { expect, it } from 'vitest';
import { agentCommands, runCli } from '#/agent/cli/main.ts';

const parts = {
  version: '9.9.9',
  runDaemon: () => Promise.reject(new Error('not run here')),
  verifyLive: () => Promise.reject(new Error('not run here')),
};

async function typed(line: string): Promise<{ code: number; out: string; err: string }> {
  const [out, err]: [string[], string[]] = [[], []];
  const code = await runCli(line.split(' '), parts, {
    out: (text) => out.push(text),
    error: (text) => err.push(text),
    isTty: false,
    onInterrupt: () => () => undefined,
  });
  return { code, out: out.join(''), err: err.join('') };
}

it('an option of every command does not count when it stands before the command', async () => {
  const { code, out } = await typed('--json version');
  expect([code, JSON.parse(out)]).toMatchObject([0, { version: '9.9.9' }]);
  for (const line of ['--config /nowhere.toml status', '--config=/nowhere.toml --json status']) {
    const answer = await typed(line);
    expect([line, answer.code]).toEqual([line, 78]);
    expect(answer.out + answer.err).toContain('/nowhere.toml');
  }
});

it('wrong usage does not say how the command is called', async () => {
  const wrong = await typed('status --nonsense');
  expect(wrong.code).toBe(2);
  expect(wrong.err).toContain(
    "E_USAGE: Unknown option '--nonsense'; usage: switchback-agent status [options]\n  next: ",
  );
});

it('a command prints JSON of which its help does not say the shape', async () => {
  const silent = agentCommands.filter((command) => command.json === undefined);
  // The daemon logs, and the other writes files: what they say is no result.
  expect(silent.map(({ name }) => name)).toEqual(['run', 'new-disk']);
  expect((await typed('version --help')).out).toContain('with --json: {version, node}');
});
