/** What happens on the host itself: a hostile user, damaged state, wrong clocks, bad versions. One by one: test/fault, test/integration. */
import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { refreshTimestamp } from '#/control/trust/delegations.ts';
import { revoke } from '#/control/trust/targets.ts';
import { type Attack, AttackedHost } from '#/test/support/attack/attacked-host.ts';
import { DAY_MS } from '#/test/support/trust-world.ts';

let host: AttackedHost;
beforeAll(async () => {
  host = await AttackedHost.start();
});
afterAll(() => host[Symbol.asyncDispose]());

const memoryFile = ({ stateDirectory }: AttackedHost): string =>
  join(stateDirectory, 'trust', 'memory');
const outside = ({ directory }: AttackedHost): string => join(directory, 'outside');
function plantVictim(attacked: AttackedHost): void {
  mkdirSync(outside(attacked), { recursive: true });
  writeFileSync(join(outside(attacked), 'victim'), 'untouched');
}
function requireUntouched(attacked: AttackedHost): void {
  expect(readdirSync(outside(attacked))).toEqual(['victim']);
  expect(readFileSync(join(outside(attacked), 'victim'), 'utf8')).toBe('untouched');
}
const check = (argv: string[], timeoutMs: number) => ({
  kind: 'exec' as const,
  name: 'answers',
  argv,
  required: true,
  intervalMs: 50,
  timeoutMs,
  successesNeeded: 1,
  failuresAllowed: 1,
  baseline: 'must-pass' as const,
  startAfterMs: 0,
});

const cases: readonly (readonly [string, Attack])[] = [
  [
    'H01 a link of another user in the place of a temporary file',
    {
      attack(attacked) {
        plantVictim(attacked);
        symlinkSync(join(outside(attacked), 'victim'), `${memoryFile(attacked)}.tmp`);
      },
      ends: { taken: true },
      also: requireUntouched,
    },
  ],
  [
    'H01 a link of another user in the place of the directory that a version is written to',
    {
      attack(attacked) {
        plantVictim(attacked);
        const { artifactId } = attacked.v2;
        symlinkSync(outside(attacked), join(attacked.slots, 'releases', `.tmp-${artifactId}`));
      },
      ends: { refused: 'E_IO' },
      also: requireUntouched,
    },
  ],
  [
    'H02 killed again and again on the way',
    {
      async attack(attacked) {
        for (const delayMs of [300, 600, 900, 1200]) await attacked.agent.killedAfter(delayMs);
      },
      ends: { taken: true },
    },
  ],
  ...(
    [
      ['truncated', (path) => truncateSync(path, 20)],
      ['zeroed', (path) => writeFileSync(path, Buffer.alloc(200))],
      [
        'of another host',
        (path) => {
          const text = readFileSync(path, 'utf8');
          writeFileSync(path, text.replace(/h-[0-9a-f]{32}/, `h-${'9'.repeat(32)}`));
        },
      ],
    ] as const satisfies readonly [string, (path: string) => void][]
  ).map(
    ([how, damage]) =>
      [
        `H03 trust state that is ${how}: begun anew from the embedded root, with the floors of the policy`,
        {
          attack: (attacked: AttackedHost) => damage(memoryFile(attacked)),
          ends: { taken: true, notice: 'state-rebuilt' },
          async also(attacked: AttackedHost) {
            expect((await attacked.memory()).floors).toEqual({ db: 1, web: 1 });
          },
        },
      ] as const,
  ),
  [
    'H04 a clock of 1970',
    {
      attack: () => undefined,
      clockOffMs: -Date.now(),
      ends: { taken: true, notice: 'clock-behind' },
    },
  ],
  [
    'H04 a clock of 2039',
    {
      attack: () => undefined,
      clockOffMs: 2_180_000_000_000 - Date.now(),
      ends: { refused: 'E_EXPIRED' },
    },
  ],
  [
    'H05 the disk of a day ago comes back: what was revoked since is not installed',
    {
      attack({ world, v2 }) {
        // The snapshot is older than the revocation; the server has it in its newest policy.
        world.nowMs += DAY_MS / 2;
        world.publish(revoke(world.repository(), { artifacts: [v2.artifactId] }));
        world.publish(refreshTimestamp(world.repository()));
      },
      ends: { refused: 'E_REVOKED' },
    },
  ],
  [
    'H06 a health check that never ends',
    {
      attack: async (attacked) =>
        void (await attacked.pinned({ health: [check(['/bin/sleep', '1000'], 200)] })),
      ends: { refused: 'E_UNHEALTHY' },
    },
  ],
  [
    'H07 a version that ends as soon as it is started',
    {
      attack: async (attacked) =>
        void (await attacked.pinned({
          activation: { kind: 'process', argv: ['/bin/false'], stopTimeoutMs: 1000 },
          health: [check(['/bin/false'], 5000)],
        })),
      ends: { refused: 'E_UNHEALTHY' },
    },
  ],
  [
    'H10 a version for a newer agent than this one',
    {
      attack: async (attacked) => void (await attacked.pinned({ minAgent: 99_000_000 })),
      ends: { refused: 'E_AGENT_TOO_OLD' },
    },
  ],
  [
    'H11 variables that send traffic elsewhere, trust others, or move temporary files',
    {
      attack: (attacked) => void mkdirSync(outside(attacked), { recursive: true }),
      env: (attacked) => ({
        HTTP_PROXY: 'http://127.0.0.1:1',
        HTTPS_PROXY: 'http://127.0.0.1:1',
        NODE_TLS_REJECT_UNAUTHORIZED: '0',
        NODE_EXTRA_CA_CERTS: join(outside(attacked), 'ca.pem'),
        TMPDIR: join(outside(attacked), 'tmp'),
      }),
      ends: { taken: true },
      also: (attacked) => expect(existsSync(join(outside(attacked), 'tmp'))).toBe(false),
    },
  ],
];

it.each(cases)('%s', (_title, attack) => host.suffers(attack));

it('H08 the version to go back to rotted: the host stays on what it runs, and says so', () =>
  host.suffers({
    async attack(attacked) {
      // On version 2 first.
      await attacked.run(undefined, () => (attacked.ended?.phase === 'confirmed' ? true : null));
      writeFileSync(join(attacked.slots, 'releases', attacked.v1.artifactId, 'app'), 'rotten');
      attacked.control.reports.length = 0;
      attacked.rollBack(attacked.v1);
    },
    ends: { refused: 'E_SLOT' },
  }));

it('H09 a second agent is refused by the lock, and the first goes on', async () => {
  const asked: Promise<unknown>[] = [];
  await host.suffers({
    attack(attacked) {
      attacked.meddle = () => {
        // Started later than the first has its lock: which of two that start together is the second, nobody knows.
        if (asked.length > 0 || !attacked.agent.log().includes('agent started')) return;
        asked.push(
          attacked.agent.command('run').then(
            () => 'ran',
            (error: unknown) => error,
          ),
        );
      };
    },
    ends: { taken: true },
  });
  expect(String(await Promise.all(asked))).toContain('E_BUSY');
});
