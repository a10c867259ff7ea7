/** Hosts on simulated disks for the suite of boot backends: GRUB's raw ORDER, and files on an ESP. */
import type { BootBackend, BootFiles, PartitionSlot } from '#/agent/adapters/boot/backend.ts';
import { makeEnvBlock } from '#/agent/adapters/boot/env-block.ts';
import { grubBackend } from '#/agent/adapters/boot/grub.ts';
import { TRIES_PATH } from '#/agent/adapters/boot/grub-config.ts';
import {
  chosenEntry,
  ENTRIES_PATH,
  isEntry,
  parseEntryName,
} from '#/agent/adapters/boot/loader-entries.ts';
import { initialOrder } from '#/agent/adapters/boot/order.ts';
import { systemdBootBackend } from '#/agent/adapters/boot/systemd-boot.ts';
import { makeDirectory, readFile, replaceFile } from '#/agent/adapters/durable.ts';
import type { FilePort } from '#/agent/ports.ts';
import type { ArtifactId } from '#/protocol/ids.ts';
import type { BackendHost } from '#/test/conformance/boot/backend.ts';
import { crashStates } from '#/test/support/sim-fs/crash-states.ts';
import { emptyImage, type Image, imageKey } from '#/test/support/sim-fs/image.ts';
import { simFs } from '#/test/support/sim-fs/sim-fs.ts';
import { grubChoice } from './grub-choice.ts';
import { partUuids } from './grub-disk.ts';
import { tornWrites } from './torn-writes.ts';

const KERNEL = '/slot/boot/vmlinuz';
const INITRD = '/slot/boot/initrd.img';

export const bootFiles: BootFiles = {
  artifactId: 'b1'.repeat(32) as ArtifactId,
  version: '2.0',
  source: { kind: 'linux', kernel: KERNEL, initrd: INITRD },
  kernelArguments: 'console=ttyS0 panic=5',
};

interface RawDisk {
  readonly order: Uint8Array;
  readonly tries: Uint8Array;
}

/** GRUB: ORDER torn at any sector and at some bytes. */
export function grubHost(
  disk: RawDisk = { order: initialOrder('a', 'panic=5'), tries: makeEnvBlock([]) },
  isLosing = false,
): BackendHost {
  let { order, tries } = disk;
  const writes: { before: Uint8Array; position: number; bytes: Uint8Array }[] = [];
  // The file of tries is read through the file port, and is written by the loader alone.
  const files = { ...simFs(emptyImage()).files } satisfies FilePort;
  const backend: BootBackend = grubBackend({
    region: {
      read: (sizeBytes) => Promise.resolve(order.slice(0, sizeBytes)),
      write(position, bytes) {
        writes.push({ before: order, position, bytes });
        if (isLosing) return Promise.resolve();
        order = new Uint8Array(order);
        order.set(bytes, position);
        return Promise.resolve();
      },
    },
    files: {
      ...files,
      stat: (path) =>
        Promise.resolve(
          path.endsWith(TRIES_PATH)
            ? { sizeBytes: tries.byteLength, kind: 'file', mtimeMs: 0 }
            : null,
        ),
      open: () =>
        Promise.resolve({
          read(buffer: Uint8Array, position: number) {
            const part = tries.subarray(position, position + buffer.byteLength);
            buffer.set(part);
            return Promise.resolve(part.byteLength);
          },
          write: () => Promise.reject(new Error('only GRUB writes its tries')),
          truncate: () => Promise.reject(new Error('only GRUB writes its tries')),
          sync: () => Promise.resolve(),
          close: () => Promise.resolve(),
        }),
    },
    esp: '/esp',
    runningArguments: 'panic=5',
  });
  return {
    backend,
    files: bootFiles,
    boot() {
      const choice = grubChoice(order, tries);
      tries = choice.tries;
      return Promise.resolve(choice.slot);
    },
    copy: () => Promise.resolve(grubHost({ order, tries })),
    losing: () => Promise.resolve(grubHost({ order, tries }, true)),
    async *cuts(act) {
      const from = grubHost({ order, tries }) as BackendHost & { written: typeof writes };
      await act(from.backend);
      for (const { before, position, bytes } of from.written) {
        let count = 0;
        for (const torn of tornWrites(before, position, bytes)) {
          count += 1;
          if (count > 12 && count % 211 !== 0) continue;
          yield { host: grubHost({ order: torn, tries }), isDone: false };
        }
      }
      yield { host: await from.copy(), isDone: true };
    },
    [Symbol.asyncDispose]: () => Promise.resolve(),
    ...{ written: writes },
  };
}

/** What the loader does to the entries: the best is booted, a counted one renamed. */
export async function systemdBoot(files: FilePort, esp: string): Promise<PartitionSlot | null> {
  const directory = esp + ENTRIES_PATH;
  const found = [];
  for (const { name: file } of await files.list(directory)) {
    const name = parseEntryName(file);
    const bytes = await readFile(files, `${directory}/${file}`, 65536);
    if (name !== null && isEntry(Buffer.from(bytes ?? []).toString(), name))
      found.push({ file, name });
  }
  const chosen = chosenEntry(found.map(({ name }) => name));
  const entry = found.find(({ name }) => name === chosen);
  if (entry === undefined) return null;
  const { left } = entry.name;
  if (left !== null && left > 0) {
    const counted = entry.file.replace(
      /\+(\d+)(?:-(\d+))?\.conf$/,
      (_, __, done?: string) => `+${left - 1}-${Number(done ?? 0) + 1}.conf`,
    );
    await files.rename(`${directory}/${entry.file}`, `${directory}/${counted}`);
  }
  return entry.name.slot;
}

/** systemd-boot: the ESP in every state that POSIX allows after a power cut. */
export async function systemdBootHost(): Promise<BackendHost> {
  const { files, image } = simFs(emptyImage());
  for (const path of ['/slot', '/slot/boot', '/esp', '/esp/loader', '/esp/loader/entries'])
    await makeDirectory(files, path);
  await replaceFile(files, KERNEL, Buffer.from('kernel '.repeat(300)));
  await replaceFile(files, INITRD, Buffer.from('initrd '.repeat(400)));
  const first = backendOn(files);
  await first.installBootFiles('a', { ...bootFiles, artifactId: 'a1'.repeat(32) as ArtifactId });
  await first.setDefault('a', null);
  return hostOn(image());
}

const backendOn = (files: FilePort): BootBackend =>
  systemdBootBackend({
    files,
    esp: '/esp',
    partUuid: (slot) => Promise.resolve(partUuids[slot]),
    variables: '/variables',
  });

function hostOn(start: Image, isLosing = false): BackendHost {
  const sim = simFs(start);
  const lost: FilePort = { ...sim.files, unlink: () => Promise.resolve() };
  return {
    backend: backendOn(isLosing ? lost : sim.files),
    files: bootFiles,
    async boot() {
      const slot = await systemdBoot(sim.files, '/esp');
      if (slot === null) throw new Error('systemd-boot has no entry');
      return slot;
    },
    copy: () => Promise.resolve(hostOn(sim.image())),
    losing: () => Promise.resolve(null),
    async *cuts(act) {
      const base = sim.image();
      const acting = simFs(base);
      await act(backendOn(acting.files));
      const done = acting.log.length;
      const seen = new Set<string>();
      for (const model of ['kill', 'ordered', 'weak'] as const) {
        for (const { image, cut } of crashStates({ base, log: acting.log }, model, { seed: 1 })) {
          const isDone = cut === done;
          const key = `${isDone} ${imageKey(image)}`;
          if (seen.has(key)) continue;
          seen.add(key);
          yield { host: hostOn(image), isDone };
        }
      }
    },
    [Symbol.asyncDispose]: () => Promise.resolve(),
  };
}
