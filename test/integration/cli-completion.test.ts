import { execFile, execFileSync } from 'node:child_process';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { completionScript, shells } from '#/control/cli/completion.ts';
import { contextForDocs } from '#/control/cli/context.ts';
import { leavesOf } from '#/control/cli/describe.ts';
import { buildProgram } from '#/control/cli/program.ts';

const run = promisify(execFile);

function isInstalled(shell: string): boolean {
  try {
    execFileSync(shell, ['-c', 'exit 0'], { stdio: 'ignore' });
    return true;
  } catch {
    return false;
  }
}

describe('completion', () => {
  let dir = '';
  const scripts: Record<string, string> = {};
  const program = buildProgram(contextForDocs);

  beforeAll(async () => {
    dir = await mkdtemp(join(tmpdir(), 'completion-'));
    for (const shell of shells) {
      scripts[shell] = join(dir, `completion.${shell}`);
      await writeFile(scripts[shell], completionScript(program, shell));
    }
  });
  afterAll(async () => {
    await rm(dir, { recursive: true, force: true });
  });

  it('a command of the tree is missing from a script', () => {
    for (const shell of shells) {
      const script = completionScript(program, shell);
      for (const { name } of leavesOf(program)) {
        for (const word of name.split(' ')) expect(script).toContain(word);
      }
    }
  });

  /** What bash offers after `line`, with the cursor at its end. */
  const inBash = async (line: string): Promise<string[]> => {
    const words = line.split(' ');
    const quoted = words.map((word) => `'${word}'`).join(' ');
    const { stdout } = await run('bash', [
      '--norc',
      '-c',
      `source ${scripts['bash']}; COMP_WORDS=(${quoted}); COMP_CWORD=${words.length - 1}; _switchback; printf '%s\\n' "\${COMPREPLY[@]}"`,
    ]);
    return stdout.split('\n').filter((word) => word !== '');
  };

  it.runIf(isInstalled('bash'))('bash does not offer commands, options and choices', async () => {
    expect(await inBash('switchback ro')).toEqual(['rollout']);
    expect(await inBash('switchback rollout p')).toEqual(['pause', 'promote']);
    expect(await inBash('switchback --json rollout wa')).toEqual(['watch']);
    expect(await inBash('switchback rollout watch web --unt')).toEqual(['--until']);
    expect(await inBash('switchback rollout watch web --until ')).toEqual(['settled', 'ended']);
    expect(await inBash('switchback completion ')).toEqual(['bash', 'zsh', 'fish']);
    expect(await inBash('switchback host ls --js')).toEqual(['--json']);
  });

  it.runIf(isInstalled('fish'))('fish does not offer commands, options and choices', async () => {
    const inFish = async (line: string): Promise<string[]> => {
      const { stdout } = await run(
        'fish',
        ['--no-config', '-c', `source ${scripts['fish']}; complete -C '${line}'`],
        { env: { ...process.env, HOME: dir, XDG_DATA_HOME: dir, XDG_CONFIG_HOME: dir } },
      );
      return stdout
        .split('\n')
        .filter((row) => row !== '')
        .map((row) => row.split('\t')[0] ?? '');
    };
    expect(await inFish('switchback ro')).toEqual(['rollout']);
    expect((await inFish('switchback rollout p')).toSorted()).toEqual(['pause', 'promote']);
    expect(await inFish('switchback rollout watch web --unt')).toEqual(['--until']);
    expect((await inFish('switchback rollout watch web --until ')).toSorted()).toEqual([
      'ended',
      'settled',
    ]);
    expect((await inFish('switchback completion ')).toSorted()).toEqual(['bash', 'fish', 'zsh']);
  });

  it.runIf(isInstalled('zsh'))('zsh does not offer commands, options and choices', async () => {
    // The completion system needs a terminal; what it is given is observed instead, through stand-ins for its two calls.
    const inZsh = async (line: string): Promise<string[]> => {
      const words = line
        .split(' ')
        .map((word) => `'${word}'`)
        .join(' ');
      const script = [
        'compdef() { }',
        '_describe() { print -rl -- "${(@P)2}" }',
        '_files() { print -r -- FILES }',
        `source ${scripts['zsh']}`,
        `words=(${words}); CURRENT=\${#words}`,
        '_switchback',
      ].join('\n');
      const { stdout } = await run('zsh', ['--no-rcs', '-c', script]);
      return stdout
        .split('\n')
        .filter((row) => row !== '')
        .map((row) => row.split(':')[0] ?? '');
    };
    expect(await inZsh('switchback ')).toContain('rollout');
    expect(await inZsh('switchback rollout ')).toEqual(
      expect.arrayContaining(['watch', 'pause', 'promote']),
    );
    expect(await inZsh('switchback --json rollout watch web --unt')).toContain('--until');
    expect(await inZsh('switchback completion ')).toEqual(['bash', 'zsh', 'fish']);
    expect(await inZsh('switchback release import ')).toEqual(['FILES']);
    expect(await inZsh('switchback rollout watch web --until ')).toEqual(['settled', 'ended']);
  });
});
