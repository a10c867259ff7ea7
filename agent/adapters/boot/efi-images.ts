/** Images of the slots on the ESP, and the one that a firmware without variables starts. */
import type { BootFiles, PartitionSlot } from './backend.ts';
import type { FilePort } from '#/agent/ports.ts';
import { syncDirectory } from '#/agent/adapters/durable.ts';
import { Problem } from '#/protocol/errors.ts';
import { createOnEsp, directoryOnEsp, namesIn, removeIfThere } from './esp-files.ts';

const IMAGES_PATH = '/EFI/switchback';
const FALLBACK_PATH = '/EFI/BOOT/BOOTX64.EFI';
const IMAGE_MAX_BYTES = 512 * 1024 * 1024;
/** In the image's command line, in the place of the PARTUUID of its slot. */
export const PARTUUID_PLACE = '00000000-0000-0000-0000-000000000000';

export interface EspImages {
  /** Path of the slot's one image, from the root of the ESP. E_BOOT when there is none or several. */
  imageOf(slot: PartitionSlot): Promise<string>;
  /** Puts the image in the place of those that the slot had, with its PARTUUID. */
  install(slot: PartitionSlot, given: BootFiles, image: string): Promise<void>;
  replaceFallback(path: string): Promise<void>;
}

export function espImages(
  files: FilePort,
  esp: string,
  partUuid: (slot: PartitionSlot) => Promise<string>,
): EspImages {
  return {
    async imageOf(slot) {
      const names = (await namesIn(files, esp + IMAGES_PATH)).filter((name) =>
        new RegExp(`^${slot}-[0-9a-f]{12}\\.efi$`).test(name),
      );
      const [name] = names;
      if (name !== undefined && names.length === 1) return `${IMAGES_PATH}/${name}`;
      throw new Problem('E_BOOT', `slot ${slot} has ${names.length} images on the ESP`);
    },
    async install(slot, given, source) {
      const directory = esp + IMAGES_PATH;
      await directoryOnEsp(files, `${esp}/EFI`);
      await directoryOnEsp(files, directory);
      for (const name of await namesIn(files, directory))
        if (name.startsWith(`${slot}-`)) await removeIfThere(files, `${directory}/${name}`);
      const image = await bytesOf(files, source);
      const at = image.indexOf(PARTUUID_PLACE);
      if (at === -1 || image.indexOf(PARTUUID_PLACE, at + 1) !== -1) {
        throw new Problem(
          'E_BOOT',
          `the command line of the image must hold root=PARTUUID=${PARTUUID_PLACE} once`,
        );
      }
      image.write((await partUuid(slot)).toLowerCase(), at, 'latin1');
      const path = `${directory}/${slot}-${given.artifactId.slice(0, 12)}.efi`;
      await createOnEsp(files, path, image);
      if (!(await bytesOf(files, path)).equals(image)) {
        throw new Problem('E_BOOT', `${path} does not read back`);
      }
    },
    async replaceFallback(path) {
      const image = await bytesOf(files, esp + path);
      if ((await bytesOf(files, esp + FALLBACK_PATH).catch(() => null))?.equals(image) === true)
        return;
      // The one file that has to keep its name: BootOrder, which stands already, covers the moment of its change.
      const fresh = `${esp}/EFI/BOOT/switchback.new`;
      await directoryOnEsp(files, `${esp}/EFI/BOOT`);
      await createOnEsp(files, fresh, image);
      await files.rename(fresh, esp + FALLBACK_PATH);
      const file = await files.open(esp + FALLBACK_PATH, 'append');
      await file.sync();
      await file.close();
      await syncDirectory(files, `${esp}/EFI/BOOT`);
    },
  };
}

async function bytesOf(files: FilePort, path: string): Promise<Buffer> {
  const found = await files.stat(path);
  if (found?.kind !== 'file' || found.sizeBytes > IMAGE_MAX_BYTES) {
    throw new Problem('E_BOOT', `${path} is no image of at most ${IMAGE_MAX_BYTES} bytes`);
  }
  const bytes = Buffer.alloc(found.sizeBytes);
  const file = await files.open(path, 'read');
  try {
    for (let at = 0; at < bytes.byteLength; ) {
      const count = await file.read(bytes.subarray(at), at);
      if (count === 0) throw new Problem('E_IO', `read ${path}: ends at byte ${at}`);
      at += count;
    }
  } finally {
    await file.close();
  }
  return bytes;
}
