/**
 * What the machine relies on in Slots and BootControl, whatever a version lives in. Called for each adapter with a host on which
 * nothing of ours is live yet and two versions that can be put there.
 */
import { expect, it } from 'vitest';
import type { BootControl, Offer, Slots } from '#/agent/ports.ts';

export interface SlotsHost extends AsyncDisposable {
  readonly slots: Slots;
  readonly boot: BootControl;
  readonly offers: readonly [Offer, Offer];
  /** Puts the version into its slot, verified, as the installer does. */
  put(offer: Offer): Promise<void>;
  /** What makes a switch true: nothing for directories, a boot of the chosen slot for partitions. */
  reboot(): Promise<void>;
}

/** Declares the suite; `make` gives a fresh host for each test. */
export function slotsConform(make: () => Promise<SlotsHost>): void {
  const live = async ({ slots, offers }: SlotsHost, offer = offers[0]): Promise<boolean> =>
    (await slots.observe()).liveArtifact === offer.artifactId;
  const status = async ({ slots }: SlotsHost, offer: Offer): Promise<string | undefined> =>
    (await slots.observe()).slots.find(({ artifactId }) => artifactId === offer.artifactId)?.status;
  /** The whole way of a good version, each step twice as after a crash. */
  const install = async (host: SlotsHost, offer: Offer): Promise<string> => {
    const { slots, boot } = host;
    const slot = await slots.targetFor(offer.artifactId);
    await slots.preflight(offer, slot);
    await host.put(offer);
    for (let twice = 0; twice < 2; twice += 1) await boot.arm(slot, 3);
    for (let twice = 0; twice < 2; twice += 1) await boot.switchTo(slot);
    await host.reboot();
    for (let twice = 0; twice < 2; twice += 1) await boot.commit(slot);
    for (let twice = 0; twice < 2; twice += 1) await slots.mark(slot, 'good', null);
    return slot;
  };

  it('a slot that was begun counts as written, or is live', async () => {
    await using host = await make();
    const [offer] = host.offers;
    const slot = await host.slots.targetFor(offer.artifactId);
    for (let twice = 0; twice < 2; twice += 1) await host.slots.begin(offer, slot);
    expect(await status(host, offer)).toBe('writing');
    expect(await live(host)).toBe(false);
  });

  it('a step that is done twice ends elsewhere than one that is done once', async () => {
    await using host = await make();
    const slot = await install(host, host.offers[0]);
    expect(await live(host)).toBe(true);
    expect(await status(host, host.offers[0])).toBe('good');
    expect(await host.boot.observe()).toMatchObject({ defaultSlot: slot, trial: null });
  });

  it('F26 the live slot is the target of another version, is begun or discarded', async () => {
    await using host = await make();
    const [first, second] = host.offers;
    const slot = await install(host, first);
    expect(await host.slots.targetFor(first.artifactId)).toBe(slot);
    expect(await host.slots.targetFor(second.artifactId)).not.toBe(slot);
    const refused = { code: 'E_NOT_ALLOWED_NOW' };
    await expect(host.slots.preflight(second, slot)).rejects.toMatchObject(refused);
    await expect(host.slots.begin(second, slot)).rejects.toMatchObject(refused);
    await expect(host.slots.discard(slot)).rejects.toMatchObject(refused);
    expect(await status(host, first)).toBe('good');
  });

  it('F54 a rollback leads elsewhere than to the slot that it names, or the bad one is selectable', async () => {
    await using host = await make();
    const [first, second] = host.offers;
    const before = await install(host, first);
    const slot = await host.slots.targetFor(second.artifactId);
    await host.put(second);
    await host.boot.arm(slot, 3);
    await host.boot.switchTo(slot);
    await host.reboot();
    expect(await live(host, second)).toBe(true);
    for (let twice = 0; twice < 2; twice += 1) await host.boot.rollBackTo(before, slot);
    await host.reboot();
    await host.slots.mark(slot, 'bad', 'E_UNHEALTHY: no answer');
    expect(await live(host, first)).toBe(true);
    expect(await status(host, second)).toBe('bad');
    expect((await host.boot.observe()).defaultSlot).toBe(before);
  });

  it('a switch that was called off before it happened changes what is live', async () => {
    await using host = await make();
    const [first, second] = host.offers;
    const before = await install(host, first);
    const slot = await host.slots.targetFor(second.artifactId);
    await host.put(second);
    await host.boot.arm(slot, 3);
    for (let twice = 0; twice < 2; twice += 1) await host.boot.disarm(slot);
    await host.reboot();
    expect(await live(host, first)).toBe(true);
    expect(await host.boot.observe()).toMatchObject({ defaultSlot: before, trial: null });
  });

  it('a slot is switched to or committed that holds no version, or is not live', async () => {
    await using host = await make();
    const [first, second] = host.offers;
    await install(host, first);
    const slot = await host.slots.targetFor(second.artifactId);
    await expect(host.boot.switchTo(slot)).rejects.toThrow();
    await expect(host.boot.commit(slot)).rejects.toMatchObject({ code: 'E_NOT_ALLOWED_NOW' });
    expect(await live(host, first)).toBe(true);
  });

  it('H02 what is live or kept is pruned', async () => {
    await using host = await make();
    const [first, second] = host.offers;
    await install(host, first);
    await host.put(second);
    const slot = await host.slots.targetFor(second.artifactId);
    for (let twice = 0; twice < 2; twice += 1) await host.slots.prune([slot]);
    expect(await status(host, first)).toBe('good');
    expect(await status(host, second)).toBe('verified');
  });
}
