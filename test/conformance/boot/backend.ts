/**
 * What the agent relies on in every boot backend. Called with a host on which slot `a` is the default and `b` holds nothing; the host
 * says what its boot loader does, and what a power cut may leave of a change.
 */
import { describe, expect, it } from 'vitest';
import type { BootBackend, BootFiles, PartitionSlot } from '#/agent/adapters/boot/backend.ts';
import { isProblem } from '#/protocol/errors.ts';

export interface BackendHost extends AsyncDisposable {
  readonly backend: BootBackend;
  readonly files: BootFiles;
  /** One boot, as the loader does it: what it counts stays. */
  boot(): Promise<PartitionSlot>;
  /** Another host with the same disk. */
  copy(): Promise<BackendHost>;
  /** Every disk that a power cut during `act` may leave, and with `isDone` those after it. */
  cuts(act: (backend: BootBackend) => Promise<void>): AsyncIterable<{
    readonly host: BackendHost;
    readonly isDone: boolean;
  }>;
  /** A host on which the next changing operation is acknowledged and not carried out; null where nothing can be lost. */
  losing(): Promise<BackendHost | null>;
}

type Act = (backend: BootBackend) => Promise<void>;

/** Declares the suite; `make` gives a fresh host for each test. */
export function backendConforms(name: string, make: () => Promise<BackendHost>): void {
  /** What the next boots choose, on a copy. */
  const future = async (host: BackendHost, boots = 4): Promise<string> => {
    await using copy = await host.copy();
    let chosen = '';
    for (let boot = 0; boot < boots; boot += 1) chosen += await copy.boot();
    return chosen;
  };
  const install = async ({ backend, files }: BackendHost): Promise<void> => {
    await backend.markBad('b');
    await backend.installBootFiles('b', files);
  };
  const arm = async (host: BackendHost, tries: number): Promise<number> => {
    await install(host);
    const given = Math.min(tries, host.backend.triesMax);
    await host.backend.arm('b', given);
    return given;
  };
  const onTrial = (tries: number): string => `${'b'.repeat(tries)}aaaa`.slice(0, 4);

  describe(name, () => {
    it('a new host does not boot its default, or shows another one', async () => {
      await using host = await make();
      const { problems, ...record } = await host.backend.observe();
      expect(record).toEqual({ default: 'a', trial: null, bad: ['b'] });
      expect(problems).toEqual([]);
      expect(await host.backend.selfTest()).toEqual([]);
      expect(await future(host)).toBe('aaaa');
    });

    it('F36 a trial is booted more or less often than it was armed, or the default changes with it', async () => {
      await using host = await make();
      const tries = await arm(host, 2);
      expect(await host.backend.observe()).toMatchObject({
        default: 'a',
        trial: { slot: 'b', triesLeft: tries },
        bad: [],
      });
      expect(await future(host)).toBe(onTrial(tries));
      await host.boot();
      const { trial, default: standard } = await host.backend.observe();
      expect(standard).toBe('a');
      // Where the firmware forgets the trial at once, nothing is left to see.
      if (host.backend.tellsAttempt) expect(trial).toEqual({ slot: 'b', triesLeft: tries - 1 });
      else expect(trial).toBeNull();
    });

    it('I10 arming again refills a counter', async () => {
      await using host = await make();
      const tries = await arm(host, 2);
      if (tries === 1) return;
      await host.boot();
      await host.backend.arm('b', tries);
      expect(await future(host)).toBe(onTrial(tries - 1));
    });

    it('a trial that was taken back is booted', async () => {
      await using host = await make();
      const tries = await arm(host, 1);
      for (let twice = 0; twice < 2; twice += 1) await host.backend.disarm('b');
      expect(await future(host)).toBe('aaaa');
      expect((await host.backend.observe()).trial).toBeNull();
      await host.backend.arm('b', tries);
      expect(await future(host)).toBe(onTrial(tries));
    });

    it('F41 what was tried and did not prove itself can be chosen after it was marked bad', async () => {
      await using host = await make();
      await arm(host, 2);
      await host.boot();
      for (let twice = 0; twice < 2; twice += 1) await host.backend.markBad('b');
      expect(await host.backend.observe()).toMatchObject({ default: 'a', trial: null, bad: ['b'] });
      expect(await future(host)).toBe('aaaa');
    });

    it('P12 a committed version is not the default for ever', async () => {
      await using host = await make();
      await arm(host, 1);
      expect(await host.boot()).toBe('b');
      for (let twice = 0; twice < 2; twice += 1) await host.backend.commit('b');
      expect(await host.backend.observe()).toMatchObject({ default: 'b', trial: null });
      expect(await future(host)).toBe('bbbb');
    });

    it('P14 a version that was taken back is booted, or the one before it is not', async () => {
      await using host = await make();
      await arm(host, 2);
      await host.boot();
      for (let twice = 0; twice < 2; twice += 1) await host.backend.setDefault('a', 'b');
      expect(await host.backend.observe()).toMatchObject({ default: 'a', trial: null, bad: ['b'] });
      expect(await future(host)).toBe('aaaa');
    });

    it('a rollback after the commit does not lead back, and the next update not forward', async () => {
      await using host = await make();
      await arm(host, 1);
      await host.boot();
      await host.backend.commit('b');
      await host.backend.setDefault('a', null);
      expect(await host.backend.observe()).toMatchObject({ default: 'a', trial: null });
      expect(await future(host)).toBe('aaaa');
      const tries = await arm(host, 2);
      expect(await future(host)).toBe(onTrial(tries));
    });

    it('the default is marked bad, written to or put on trial', async () => {
      await using host = await make();
      const refused: readonly Act[] = [
        (backend) => backend.markBad('a'),
        (backend) => backend.arm('a', 1),
      ];
      for (const act of refused) {
        const problem = await act(host.backend).catch((error: unknown) => error);
        expect(isProblem(problem, 'E_BOOT')).toBe(true);
      }
      expect(await future(host)).toBe('aaaa');
    });

    it('F24 a change that the disk lost counts as done', async () => {
      for (const act of steps(await prepared('armed')).slice(-3)) {
        await using host = await (await prepared('armed'))().then((made) => made.losing());
        if (host === null) return;
        const problem = await act.run(host.backend).catch((error: unknown) => error);
        expect([act.name, isProblem(problem, 'E_BOOT', 'E_IO')]).toEqual([act.name, true]);
      }
    });

    it('F32 a power cut at any moment of a change leaves neither the old nor the new', async () => {
      let states = 0;
      for (const stage of ['new', 'installed', 'armed', 'tried', 'committed'] as const) {
        const made = await prepared(stage);
        for (const { name: step, run } of steps(made)) {
          await using host = await made();
          const before = await future(host);
          await using whole = await host.copy();
          const isRefused = await run(whole.backend).then(
            () => false,
            () => true,
          );
          if (isRefused) continue;
          const after = await future(whole);
          for await (const { host: cut, isDone } of host.cuts(run)) {
            await using state = cut;
            const seen = await future(state);
            const allowed = isDone ? [after] : [before, after];
            const where = `${stage}, ${step}: ${seen}, not ${allowed.join(' or ')}`;
            if (!allowed.includes(seen)) expect.fail(where);
            await run(state.backend);
            const repeated = await future(state);
            if (repeated !== after) expect.fail(`${where}; repeated ${repeated}`);
            states += 1;
          }
        }
      }
      expect(states).toBeGreaterThan(20);
    });
  });

  /** Makes hosts that have come so far. */
  async function prepared(
    stage: 'new' | 'installed' | 'armed' | 'tried' | 'committed',
  ): Promise<() => Promise<BackendHost>> {
    const host = await make();
    if (stage !== 'new') await install(host);
    if (stage === 'armed' || stage === 'tried' || stage === 'committed') await arm(host, 2);
    if (stage === 'tried' || stage === 'committed') await host.boot();
    if (stage === 'committed') await host.backend.commit('b');
    return () => host.copy();
  }

  function steps(
    made: () => Promise<BackendHost>,
  ): readonly { readonly name: string; readonly run: Act }[] {
    return [
      { name: 'mark bad', run: (backend) => backend.markBad('b') },
      {
        name: 'install',
        run: async (backend) => {
          await using host = await made();
          await backend.installBootFiles('b', host.files);
        },
      },
      { name: 'arm', run: (backend) => backend.arm('b', Math.min(2, backend.triesMax)) },
      { name: 'disarm', run: (backend) => backend.disarm('b') },
      { name: 'commit', run: (backend) => backend.commit('b') },
      { name: 'take back', run: (backend) => backend.setDefault('a', 'b') },
    ];
  }
}
