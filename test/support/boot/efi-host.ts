/** A host whose firmware starts the slots by its variables: an ESP on the simulated file system, variables that are written whole. */
import type { BootFiles, PartitionSlot } from '#/agent/adapters/boot/backend.ts';
import { efiBackend } from '#/agent/adapters/boot/efi.ts';
import { PARTUUID_PLACE } from '#/agent/adapters/boot/efi-images.ts';
import { decodeEntry, type EfiVariables } from '#/agent/adapters/boot/efi-variables.ts';
import { makeDirectory, readFile, replaceFile } from '#/agent/adapters/durable.ts';
import type { FilePort } from '#/agent/ports.ts';
import type { ArtifactId } from '#/protocol/ids.ts';
import type { BackendHost } from '#/test/conformance/boot/backend.ts';
import { crashStates } from '#/test/support/sim-fs/crash-states.ts';
import { emptyImage, type Image, imageKey } from '#/test/support/sim-fs/image.ts';
import { simFs, type SimFs } from '#/test/support/sim-fs/sim-fs.ts';
import { partUuids } from './grub-disk.ts';
import { bootFiles } from './sim-hosts.ts';

type Variables = ReadonlyMap<string, Uint8Array>;
const IMAGE = '/slot/boot/uki.efi';
const efiFiles: BootFiles = { ...bootFiles, source: { kind: 'uki', image: IMAGE } };

/** Each write of a variable is one moment in the log of the disk. */
function variablesOn(sim: SimFs, held: { now: Variables }, isLosing: boolean): EfiVariables {
  const change = (to: Variables): Promise<void> => {
    if (!isLosing) held.now = to;
    sim.mark(held.now);
    return Promise.resolve();
  };
  return {
    names: () => Promise.resolve([...held.now.keys()]),
    read: (name) => Promise.resolve(held.now.get(name) ?? null),
    write: (name, value) => change(new Map([...held.now, [name, value]])),
    remove: (name) => change(new Map([...held.now].filter(([one]) => one !== name))),
  };
}

const backendOn = (files: FilePort, variables: EfiVariables, seen = 'an earlier boot') =>
  efiBackend({
    files,
    variables,
    esp: '/esp',
    espLocation: () =>
      Promise.resolve({ number: 2, startSector: 2048, sectors: 8192, partUuid: partUuids.a }),
    partUuid: (slot) => Promise.resolve(partUuids[slot]),
    seen: { read: () => Promise.resolve(seen), write: () => Promise.resolve() },
    bootId: () => 'this boot',
  });

/** What firmware does: BootNext once, BootOrder, then the file that needs no variables. */
async function firmware(files: FilePort, held: { now: Variables }): Promise<PartitionSlot> {
  const u16 = (name: string): readonly number[] => {
    const value = Buffer.from(held.now.get(name) ?? []);
    return Array.from({ length: value.byteLength >> 1 }, (_, index) =>
      value.readUInt16LE(index * 2),
    );
  };
  const candidates = [...u16('BootNext'), ...u16('BootOrder')].map((number) => {
    const value = held.now.get(`Boot${number.toString(16).toUpperCase().padStart(4, '0')}`);
    return value === undefined ? null : (decodeEntry(value)?.path ?? null);
  });
  held.now = new Map([...held.now].filter(([name]) => name !== 'BootNext'));
  for (const path of [...candidates, '\\EFI\\BOOT\\BOOTX64.EFI']) {
    if (path === null) continue;
    const bytes = await readFile(files, `/esp${path.replaceAll('\\', '/')}`, 1 << 20);
    const text = Buffer.from(bytes ?? []).toString('latin1');
    // An image that was cut is none: the firmware goes on.
    if (!text.endsWith('end of image')) continue;
    if (text.includes(partUuids.a)) return 'a';
    if (text.includes(partUuids.b)) return 'b';
  }
  throw new Error('the firmware starts nothing');
}

/** A host on which slot a was installed and is the default. */
export async function efiHost(): Promise<BackendHost> {
  const sim = simFs(emptyImage());
  for (const path of ['/slot', '/slot/boot', '/esp']) await makeDirectory(sim.files, path);
  const text = `MZ ${'code '.repeat(300)}root=PARTUUID=${PARTUUID_PLACE} ro ${'more '.repeat(99)}end of image`;
  await replaceFile(sim.files, IMAGE, Buffer.from(text));
  const held: { now: Variables } = { now: new Map() };
  const backend = backendOn(sim.files, variablesOn(sim, held, false));
  await backend.installBootFiles('a', { ...efiFiles, artifactId: 'a1'.repeat(32) as ArtifactId });
  await backend.commit('a');
  return hostOn(sim.image(), held.now);
}

/** The same disk in a machine whose firmware has forgotten everything. */
export function withoutVariables(host: BackendHost): BackendHost {
  return hostOn((host as EfiHost).disk(), new Map());
}

interface EfiHost extends BackendHost {
  disk(): Image;
}

function hostOn(start: Image, variables: Variables, isLosing = false): EfiHost {
  const sim = simFs(start);
  const held = { now: variables };
  return {
    backend: backendOn(sim.files, variablesOn(sim, held, isLosing)),
    files: efiFiles,
    disk: () => sim.image(),
    boot: () => firmware(sim.files, held),
    copy: () => Promise.resolve(hostOn(sim.image(), held.now)),
    losing: () => Promise.resolve(hostOn(sim.image(), held.now, true)),
    async *cuts(act) {
      const base = sim.image();
      const acting = simFs(base);
      const at = { now: held.now };
      await act(backendOn(acting.files, variablesOn(acting, at, false)));
      const done = acting.log.length;
      const seen = new Set<string>();
      for (const model of ['kill', 'ordered', 'weak'] as const) {
        for (const { image, cut, world } of crashStates({ base, log: acting.log }, model, {
          seed: 1,
        })) {
          const then = (world as Variables | null) ?? held.now;
          const isDone = cut === done;
          const key = `${isDone} ${[...then].map(([name, value]) => name + Buffer.from(value).toString('hex')).join()} ${imageKey(image)}`;
          if (seen.has(key)) continue;
          seen.add(key);
          yield { host: hostOn(image, then), isDone };
        }
      }
    },
    [Symbol.asyncDispose]: () => Promise.resolve(),
  };
}
