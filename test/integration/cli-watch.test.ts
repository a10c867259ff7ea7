/** Commands that go on looking, against a real control: on a terminal and in a pipe. */
import { describe, expect, it } from 'vitest';
import { type CliContext, contextForDocs } from '#/control/cli/context.ts';
import { EXIT_INTERRUPTED, run } from '#/control/cli/run.ts';
import type { SummaryView } from '#/protocol/operator-plane.ts';
import { waitFor } from '#/test/support/fleet/fleet.ts';
import { startWorld, type World } from '#/test/support/control/world.ts';

const PATIENCE_MS = 20_000;
const LOOK_EVERY_MS = 20;
/** Looks at something that does not change. */
const LOOKS = 20;

/** A command line that runs until it ends by itself, or until `stop`. */
function typed(world: World, isTty: boolean, ...args: string[]) {
  const ctrlC = new AbortController();
  let [out, err] = ['', ''];
  const output = { isTty, columns: 100, rows: 40 };
  const context: CliContext = {
    ...contextForDocs,
    env: { SWITCHBACK_URL: world.control.url, SWITCHBACK_TOKEN: world.adminToken, NO_COLOR: '1' },
    out: { ...output, write: (text) => void (out += text) },
    err: { ...output, write: (text) => void (err += text) },
    now: () => Date.now(),
    sleep: () => new Promise((resolve) => setTimeout(resolve, LOOK_EVERY_MS)),
    signal: ctrlC.signal,
  };
  const ended = run(args, context);
  return {
    ended,
    out: () => out,
    err: () => err,
    until: (text: string | RegExp) =>
      waitFor(`${String(text)} is shown`, PATIENCE_MS, () =>
        Promise.resolve(out.search(text) >= 0 ? true : null),
      ),
    stop: () => (ctrlC.abort(), ended),
  };
}

describe('commands that go on looking', () => {
  it('status --watch: a line of JSON whenever something has changed, and only then', async () => {
    await using world = await startWorld();
    const watch = typed(world, false, 'status', '--watch', '--json');
    await watch.until('\n');
    await world.group('web');
    await watch.until(/"name":"web"/u);
    await new Promise((resolve) => setTimeout(resolve, LOOKS * LOOK_EVERY_MS));
    expect(await watch.stop()).toBe(EXIT_INTERRUPTED);
    const lines = watch.out().trimEnd().split('\n');
    const seen = lines.map((line) => JSON.parse(line) as SummaryView);
    const news = seen.map((look) => JSON.stringify({ ...look, asOfMs: 0, pollsPerMinute: 0 }));
    expect(news.filter((text, index) => text === news[index - 1])).toEqual([]);
    // A busy machine may shed load for a moment, which is news too.
    expect([...new Set(seen.map(({ groups }) => groups.length))]).toEqual([0, 1]);
    expect(watch.err()).toBe('');
  });

  it('status --watch on a terminal says that control is away, and goes on when it is back', async () => {
    await using world = await startWorld();
    await world.group('web');
    const watch = typed(world, true, 'status', '--watch');
    await watch.until('web');
    expect(watch.out()).not.toContain('no answer');
    const port = Number(new URL(world.control.url).port);
    await world.control.stop();
    await watch.until(/no answer from control since .*\n[^\n]*\n0 hosts/u);
    await world.restart({ port });
    await world.group('later');
    await watch.until('later');
    expect(await watch.stop()).toBe(EXIT_INTERRUPTED);
    // The terminal is given back.
    expect(watch.out().endsWith('\u001b[?7h\u001b[?25h')).toBe(true);
    expect(watch.err()).toBe('');
  });

  it('status --watch does not go on where no look will help', async () => {
    await using world = await startWorld();
    const watch = typed(world, false, 'status', '--watch', '--json', '--token', 'sbo1.no.such');
    expect(await watch.ended).toBe(20);
    expect(JSON.parse(watch.err())).toMatchObject({ exit: 20 });
    expect(watch.out()).toBe('');
  });

  it('rollout watch tells each change once, and ends with what became of it', async () => {
    await using world = await startWorld();
    const group = await world.group('web', { canaryCount: 0, wavePercents: [100], soakSeconds: 0 });
    const hosts = [await world.host(group), await world.host(group)];
    const body = { artifactId: await world.release(1), reason: 'v1' };
    await world.admin.call('groupPin', { params: { group }, body });
    const watch = typed(world, false, 'rollout', 'watch', group, '--json');
    await watch.until('"event":"host"');
    for (const host of hosts) await host.follow();
    expect([await watch.ended, watch.err()]).toEqual([0, '']);
    const lines = watch.out().trimEnd().split('\n');
    const events = lines.map((line) => JSON.parse(line) as { event: string; to: string });
    expect(events.filter(({ event }) => event === 'state').map(({ to }) => to)).toEqual([
      'running',
      'done',
    ]);
    expect(new Set(lines.map((line) => line.replace(/"atMs":\d+/u, ''))).size).toBe(lines.length);
  });
});
