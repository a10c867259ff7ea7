/** The agent under a hostile environment is one process: a signal to it hits all of it. */
import { spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, it } from 'vitest';

/** Processes whose command line names the configuration of this test. */
async function agentsOf(config: string): Promise<readonly number[]> {
  const found: number[] = [];
  for (const name of await readdir('/proc')) {
    if (!/^\d+$/.test(name)) continue;
    const line = await readFile(`/proc/${name}/cmdline`, 'utf8').catch(() => '');
    if (line.includes(config)) found.push(Number(name));
  }
  return found;
}

it('H11 SIGKILL of an agent that was started with other authorities leaves the real one running', async () => {
  const base = await mkdtemp(join(tmpdir(), 'sb-environment-'));
  const config = join(base, 'agent.toml');
  const socket = join(base, 'run', 'agent.sock');
  await writeFile(
    config,
    [
      `[state]\ndirectory = "${base}/state"\nrun_directory = "${base}/run"`,
      `[slots]\nroot = "${base}/slots"`,
      `[local]\nsocket = "${socket}"\n`,
    ].join('\n'),
  );
  const child = spawn(process.execPath, ['agent/main.ts', 'run', '--config', config], {
    env: { ...process.env, NODE_EXTRA_CA_CERTS: '/etc/hostname', LD_LIBRARY_PATH: '/evil' },
    stdio: 'ignore',
  });
  const ended = new Promise<string | null>((done) => child.once('exit', (_code, how) => done(how)));
  try {
    await expect.poll(() => existsSync(socket), { timeout: 60_000, interval: 50 }).toBe(true);
    expect(await agentsOf(config)).toEqual([child.pid]);
    const environment = await readFile(`/proc/${child.pid}/environ`, 'utf8');
    expect(environment).not.toContain('NODE_EXTRA_CA_CERTS');
    expect(environment).not.toContain('LD_LIBRARY_PATH');
  } finally {
    child.kill('SIGKILL');
    await ended;
  }
  expect(await ended).toBe('SIGKILL');
  expect(await agentsOf(config)).toEqual([]);
  await rm(base, { recursive: true, force: true });
}, 90_000);
