import { describe, expect, it } from 'vitest';
import { realMachine, V1, V2, type World } from '#/test/model/agent/world.ts';
import {
  endOf,
  fail,
  goTo,
  goToEnd,
  hear,
  hostWith,
  kill,
  memOf,
  order,
  pass,
  placeOf,
  reboot,
  rewound,
  succeed,
} from './hosts.ts';

/** Control has answered, and the offer is being resolved. */
function atResolve(host: World): World {
  let now = goTo(host, 'checking');
  while (now.agent?.running == null) now = goTo(now, 'checking');
  return now;
}

describe('before the switch', () => {
  it('F18 no space: the old slot is untouched, and the offer waits before it is tried again', () => {
    const full = fail(
      goTo(hostWith('directory', 'good'), 'downloading.fetch'),
      'E_SPACE',
      'exhausted',
    );
    expect(placeOf(full)).toBe('aborted.discard');
    const over = goToEnd(full);
    expect(endOf(over)).toEqual(['aborted', 'E_SPACE']);
    expect(over.slots[V1]?.status).toBe('good');
    expect(over.slots[V2]?.status).toBe('empty');
    expect(placeOf(hear(over))).toBe('idle.settled');
  });

  it('F21 power cut while the slot is written: it cannot be chosen, and the write goes on', () => {
    const cut = reboot(goTo(hostWith('partition', 'good'), 'downloading.fetch'));
    expect(cut.live).toBe('a');
    expect(cut.slots['b']?.status).toBe('writing');
    expect(placeOf(goTo(cut, 'downloading.fetch'))).toBe('downloading.fetch');
  });

  it('F22 power cut between write and read-back: the slot is read back again, not trusted', () => {
    const cut = reboot(goTo(hostWith('directory', 'good'), 'verifying'));
    expect(memOf(goTo(cut, 'verifying')).at).toBe('verifying');
  });

  it('F23 a slot that is verified already is not downloaded again', () => {
    const staged = goTo(hostWith('directory', 'good'), 'staged');
    const recalled = hear({ ...staged, control: 'recalled' });
    const again = goTo({ ...goToEnd(recalled), control: 'offering' }, 'preflight');
    const mem = memOf(again);
    expect(mem.at === 'preflight' && mem.held).toBe(true);
  });

  it('F24 the device lies: written anew once, then someone has to look', () => {
    const first = fail(goTo(hostWith('directory', 'good'), 'verifying'), 'E_SLOT', 'damaged');
    expect(placeOf(first)).toBe('downloading.begin');
    const second = fail(goTo(first, 'verifying'), 'E_SLOT', 'damaged');
    expect(placeOf(second)).toBe('needs-attention.remove-ticket');
    expect(endOf(second)).toEqual(['needs-attention', 'E_SLOT']);
  });

  it('F22 F24 what a power cut may have taken is written anew as if for the first time', () => {
    const first = fail(goTo(hostWith('directory', 'good'), 'verifying'), 'E_SLOT', 'damaged');
    const cut = reboot(goTo(first, 'verifying'));
    const second = fail(goTo(cut, 'verifying'), 'E_SLOT', 'damaged');
    expect(placeOf(second)).toBe('downloading.begin');
    const killed = kill(goTo(first, 'verifying'));
    const third = fail(goTo(killed, 'verifying'), 'E_SLOT', 'damaged');
    expect(placeOf(third)).toBe('needs-attention.remove-ticket');
  });

  it('F28 power cuts before the switch of a directory, as often as they come: the attempt goes on', () => {
    let now = goTo(hostWith('directory', 'good'), 'arming.ticket');
    const { attempt } = memOf(now) as { readonly attempt?: { readonly id: string } };
    for (let cuts = 0; cuts < 4; cuts += 1) now = goTo(reboot(now), 'arming.ticket');
    const over = goToEnd(now);
    expect(endOf(over)).toEqual(['confirmed', null]);
    expect(memOf(over).lastEnd?.ref?.id).toBe(attempt?.id);
  });

  it('F25 an I/O error while writing is not tried again', () => {
    const broken = fail(
      goTo(hostWith('directory', 'good'), 'downloading.fetch'),
      'E_IO',
      'damaged',
    );
    expect(memOf(broken).at).toBe('needs-attention');
  });

  it('damaged bytes are fetched again from control, and refused at once from the file of an operator', () => {
    const fetched = goTo(hostWith('directory', 'good'), 'downloading.fetch');
    expect(placeOf(fail(fetched, 'E_CHUNK', 'damaged'))).toBe('downloading.fetch');
    const path = '/media/web.bundle';
    const given = order(goTo(hostWith('directory', 'good'), 'idle'), {
      kind: 'install-file',
      path,
    });
    const refused = fail(goTo(given, 'downloading.fetch'), 'E_CHUNK', 'damaged');
    expect(placeOf(refused)).toBe('aborted.end');
    expect(endOf(goToEnd(refused))).toEqual(['aborted', 'E_CHUNK']);
  });

  it('F26 the slots adapter names the live slot as target: refused, nothing is written', () => {
    const asked = goTo(hostWith('directory', 'good'), 'preflight');
    const refused = succeed(asked, { slot: V1, identity: V1 });
    expect(endOf(refused)).toEqual(['refused', 'E_NOT_ALLOWED_NOW']);
  });

  it('F29 the ticket cannot be written: there is no switch', () => {
    const stuck = fail(
      goTo(hostWith('directory', 'good'), 'arming.ticket'),
      'E_READ_ONLY',
      'damaged',
    );
    const over = goToEnd(stuck);
    expect(endOf(over)).toEqual(['aborted', 'E_READ_ONLY']);
    expect(over.live).toBe(V1);
  });

  it('F30 the state store cannot be written: observed only, and it goes on once it can', () => {
    const armed = goTo(hostWith('directory', 'good'), 'arming.arm');
    const blind = { ...armed, disk: { ...armed.disk, broken: true } };
    const after = pass(hear({ ...blind, control: 'halted' }), 1000);
    expect(memOf(after).modes.observeOnly).toBe(true);
    expect(after.agent?.running).toBeNull();
    const over = goToEnd({ ...after, control: 'offering' });
    expect(endOf(over)).toEqual(['confirmed', null]);
  });

  it('F30 reports that fail with each poll put off for ever the look whether the store can be written', () => {
    const armed = goTo(hostWith('directory', 'good'), 'arming.arm');
    const blind = { ...armed, disk: { ...armed.disk, broken: true } };
    const observed = memOf(pass(hear({ ...blind, control: 'halted' }), 1000));
    const due = observed.op?.dueRunMs;
    expect(due).toBeGreaterThan(observed.run.runMs);
    const now = {
      wallMs: 0,
      monotonicMs: observed.run.monotonicMs + 29_000,
      bootId: observed.run.bootId,
      random: 0.5,
      freshId: 'f'.repeat(16),
    };
    const failure = { code: 'E_READ_ONLY', kind: 'damaged', message: 'not open' } as const;
    const [after, effects] = realMachine.step(observed, { type: 'store-failed', failure, now });
    expect([after.op?.dueRunMs, effects]).toEqual([due, []]);
  });

  it('F56 a version below the floor is taken up, or one that is not denied is held back with another', () => {
    const low = fail(atResolve(hostWith('directory', 'good')), 'E_FLOOR', 'refused');
    expect(endOf(low)).toEqual(['refused', 'E_FLOOR']);
    const denied = [
      {
        artifactId: '3'.repeat(64) as typeof V2,
        code: 'E_UNHEALTHY' as const,
        message: '',
        retryGeneration: 0,
        count: 1,
        atWallMs: 0,
      },
    ];
    const host = hostWith('directory', 'good');
    const over = goToEnd({ ...host, disk: { ...host.disk, denied } });
    expect(endOf(over)).toEqual(['confirmed', null]);
    expect(memOf(over).denied).toEqual(denied);
  });

  it('F60 the lock behind the drain hook is not given: no switch, and nothing is kept', () => {
    let now = goTo(hostWith('partition', 'good'), 'waiting.drain');
    for (let tries = 1; tries < 5; tries += 1) {
      now = fail(now, 'E_HOOK', 'unavailable');
      expect(placeOf(now)).toBe('waiting.drain');
      expect(now.agent?.running).toBeNull();
      now = pass(now, 300_000);
    }
    const given = fail(now, 'E_HOOK', 'unavailable');
    expect([placeOf(given), given.agent?.running?.do]).toEqual(['arming.undrain', 'undrain']);
    expect(endOf(goToEnd(given))).toEqual(['aborted', 'E_HOOK']);
  });

  it('F60 the lock is not given back after a rollback across reboots', () => {
    const back = goTo(hostWith('partition', 'unhealthy'), 'rolled-back.undrain');
    expect(back.agent?.running?.do).toBe('undrain');
    expect(goTo(reboot(back), 'rolled-back.undrain').agent?.running?.do).toBe('undrain');
  });

  it('F58 recalled while downloading, staged or arming: ends before the switch', () => {
    for (const place of [
      'downloading.fetch',
      'staged',
      'waiting.window',
      'arming.ticket',
    ] as const) {
      const over = goToEnd(
        hear({ ...goTo(hostWith('partition', 'good'), place), control: 'recalled' }),
      );
      expect(endOf(over)).toEqual(['aborted', 'E_RECALLED']);
      expect([over.live, over.boot.trial, over.disk.ticket]).toEqual(['a', null, null]);
    }
  });

  it('F58 halted while armed: disarmed and kept staged, and it goes on when the halt is lifted', () => {
    const armed = goTo(hostWith('partition', 'good'), 'switching.reboot');
    const halted = goTo(hear({ ...armed, control: 'halted', rebootAsked: false }), 'staged');
    expect(halted.boot.trial).toBeNull();
    expect(halted.agent?.running).toBeNull();
    const over = goToEnd(hear({ ...halted, control: 'offering' }));
    expect(endOf(over)).toEqual(['confirmed', null]);
  });

  it('F63 put back to an old snapshot before the switch: the attempt ends as rewound', () => {
    const staged = goTo(hostWith('directory', 'good'), 'staged');
    const over = goToEnd(rewound(staged));
    expect(endOf(over)).toEqual(['aborted', 'E_REWOUND']);
  });

  it('F70 killed while it writes: the slot stays unusable, the write is taken up again', () => {
    const killed = kill(goTo(hostWith('directory', 'good'), 'downloading.fetch'));
    expect(killed.slots[V2]?.status).toBe('writing');
    expect(endOf(goToEnd(killed))).toEqual(['confirmed', null]);
  });
});

describe('the switch and the trial', () => {
  it('F31 power cut in the middle of the link swap: the ticket goes on from what is live', () => {
    const before = reboot(goTo(hostWith('directory', 'good'), 'switching.switch'));
    expect(endOf(goToEnd(before))).toEqual(['confirmed', null]);
    const after = reboot(goTo(hostWith('directory', 'good'), 'switching.activate'));
    expect(placeOf(goTo(after, 'trial'))).toMatch(/^trial\./);
  });

  it('F33 the host does not reboot: noticed by the unchanged boot, and all is taken back', () => {
    const asked = goTo(hostWith('partition', 'good'), 'switching.reboot');
    const over = goToEnd({ ...asked, isRebootIgnored: true });
    expect(endOf(over)).toEqual(['aborted', 'E_REBOOT']);
    expect([over.boot.trial, over.boot.defaultSlot, over.live]).toEqual([null, 'a', 'a']);
  });

  it('F34 the boot loader did not try the slot: not held against the version, armed once more', () => {
    const asked = goTo(hostWith('partition', 'good'), 'switching.reboot');
    const { boot } = asked;
    const skipped = { ...reboot({ ...asked, boot: { ...boot, trial: null } }), boot };
    const unwound = goTo(skipped, 'staged');
    expect(memOf(unwound).denied).toEqual([]);
    expect(endOf(goToEnd(unwound))).toEqual(['confirmed', null]);
  });

  it('F34 not tried twice: ends, and is denied as not bootable here', () => {
    const skip = (world: ReturnType<typeof hostWith>) => {
      const asked = goTo(world, 'switching.reboot');
      const { boot } = asked;
      return { ...reboot({ ...asked, boot: { ...boot, trial: null } }), boot };
    };
    const over = goToEnd(goTo(skip(skip(hostWith('partition', 'good'))), 'aborted'));
    expect(endOf(over)).toEqual(['aborted', 'E_NOT_ATTEMPTED']);
    expect(memOf(over).denied[0]?.code).toBe('E_NOT_ATTEMPTED');
  });

  it('F35 a slot that nobody switched to is live: adrift, and nothing is done to it', () => {
    const idle = goToEnd(hostWith('directory', 'good'));
    const third = '3'.repeat(64);
    const slots = {
      ...idle.slots,
      [third]: { artifact: V1, status: 'bad' as const, complete: true },
    };
    const strange = kill({ ...idle, live: third, slots });
    expect(placeOf(goTo(strange, 'needs-attention.rest'))).toBe('needs-attention.rest');
  });

  it('F36 the boot loader fell back: denied, reported with what was reached, not tried again', () => {
    const over = goToEnd(hostWith('partition', 'dead-on-start'));
    expect(endOf(over)).toEqual(['rolled-back', 'E_FELL_BACK']);
    expect(over.disk.denied[0]?.artifactId).toBe(V2);
  });

  it('F40 the operator reboots in the trial: one trial boot, no verdict', () => {
    const onTrial = goTo(hostWith('partition', 'good'), 'trial.checks');
    const again = goTo(reboot({ ...onTrial }), 'trial.checks');
    const mem = memOf(again);
    expect(mem.at === 'trial' && mem.ticket.bootsUsed).toBe(2);
    expect(endOf(goToEnd(again))).toEqual(['confirmed', null]);
  });

  it('F41 the trial boots run out: rolled back, exactly once', () => {
    let now = goTo(hostWith('directory', 'good'), 'trial.checks');
    for (let boots = 0; boots < 2; boots += 1) now = goTo(reboot(now), 'trial.checks');
    const over = goToEnd(reboot(now));
    expect(endOf(over)[0]).toBe('rolled-back');
    expect([over.live, over.disk.ticket]).toEqual([V1, null]);
  });

  it('F42 the wall clock jumps ten years in a trial: the deadline does not move', () => {
    const onTrial = goTo(hostWith('directory', 'good'), 'trial.soak');
    const jumped = pass({ ...onTrial, wallMs: onTrial.wallMs + 3e11 }, 0);
    expect(memOf(jumped).at).toBe('trial');
    const back = pass({ ...onTrial, wallMs: 0 }, 0);
    expect(memOf(back).at).toBe('trial');
  });

  it('F46 F49 control is gone in the trial: no verdict by itself', () => {
    const over = goToEnd(goTo(hostWith('directory', 'good'), 'trial.checks'));
    expect(endOf(over)).toEqual(['confirmed', null]);
  });

  it('F61 the window closes in the middle of a trial: the trial goes on to its own end', () => {
    const onTrial = goTo(hostWith('directory', 'good'), 'trial.checks');
    expect(endOf(goToEnd(hear({ ...onTrial, control: 'halted' })))).toEqual(['confirmed', null]);
  });
});

describe('the way back', () => {
  it('F51 the old version is not healthy either: three rounds, then someone has to look', () => {
    const over = goToEnd(hostWith('directory', 'bad-environment'));
    expect(endOf(over)).toEqual(['needs-attention', 'E_ROLLBACK_FAILED']);
    expect(over.disk.ticket).toBeNull();
  });

  it('F53 a version that changed data for good is not taken back by itself', () => {
    const over = goToEnd(hostWith('directory', 'one-way-unhealthy'));
    expect(endOf(over)).toEqual(['needs-attention', 'E_ONE_WAY']);
    expect(over.live).toBe(V2);
  });

  it('F52 F54 another slot than the pinned one is live after the rollback: back again, never two back', () => {
    const verify = goTo(hostWith('directory', 'unhealthy'), 'rollback-verify.observe');
    const wrong = goTo({ ...verify, live: V2, active: V2 }, 'rolling-back.boot');
    expect(endOf(goToEnd(wrong))).toEqual(['rolled-back', 'E_UNHEALTHY']);
  });

  it('F55 the same version is offered again after its rollback: refused once, with the reason, then quiet', () => {
    const back = goToEnd(hostWith('directory', 'unhealthy'));
    const refused = goTo(back, 'refused');
    expect(endOf(refused)).toEqual(['refused', 'E_DENIED']);
    expect(placeOf(hear(goToEnd(refused)))).toBe('idle.settled');
  });

  it('F47 fails after its commit: only an ordered rollback leads back, as an attempt of its own', () => {
    const good = goToEnd(hostWith('directory', 'good'));
    const ordered = goTo(order(good, { kind: 'rollback' }), 'trial.checks');
    const mem = memOf(ordered);
    expect(mem.at === 'trial' && mem.attempt.kind).toBe('rollback');
    const over = goToEnd(ordered);
    expect(endOf(over)).toEqual(['confirmed', null]);
    expect(over.live).toBe(V1);
    expect(over.disk.denied.map((entry) => entry.artifactId)).toEqual([V2]);
    expect(over.disk.floor).toBe(2);
  });

  it('F63 the journal is of yesterday and the ticket is not: taken over from the ticket', () => {
    const onTrial = goTo(hostWith('directory', 'good'), 'trial.checks');
    const lost = kill({ ...onTrial, disk: { ...onTrial.disk, journal: null } });
    expect(endOf(goToEnd(lost))).toEqual(['confirmed', null]);
  });

  it('F57 killed between the end of an attempt and its report: reported after the next start', () => {
    const refusing = goTo(hostWith('directory', 'unhealthy'), 'rolled-back');
    const killed = kill({ ...refusing, disk: { ...refusing.disk, outbox: {} } });
    const over = goToEnd(killed);
    expect(Object.values(over.disk.outbox)).toContain('rolled-back');
  });
});
