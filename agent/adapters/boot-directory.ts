/**
 * BootControl of a directory host: the link `current` is the boot record (D8, D11, D14; durability recipe 2).
 *
 * `previous` changes only at a commit. So that a commit after a restart still knows which version was left, the switch
 * first records it in `.former`; whatever these two links say, the ticket decides about a rollback.
 */
import type { BootControl, FilePort } from '#/agent/ports.ts';
import {
  directoryLayout,
  isDirectorySlot,
  linkTarget,
  slotOfLink,
} from '#/agent/install/layout.ts';
import { Problem } from '#/protocol/errors.ts';
import { parentOf, removeFile, switchLink, syncDirectory } from './durable.ts';

export interface DirectoryBootOptions {
  /** Directory that holds releases/, current and previous. */
  readonly root: string;
  readonly files: FilePort;
}

/** The link is swapped atomically; every method can be repeated after a crash at any point. */
export function createDirectoryBootControl(options: DirectoryBootOptions): BootControl {
  const { files } = options;
  const layout = directoryLayout(options.root);

  /** Points `current` to the slot, durably, also when an earlier call was cut after its rename. */
  const point = async (slot: string): Promise<void> => {
    await requireVersion(files, layout.release(slot), slot);
    if ((await readSlotLink(files, layout.current)) === slot) {
      await syncDirectory(files, parentOf(layout.current));
      return;
    }
    await switchLink(files, linkTarget(slot), layout.current);
  };

  return {
    async observe() {
      return { defaultSlot: await readSlotLink(files, layout.current), trial: null };
    },
    async arm() {},
    async disarm() {},
    async switchTo(slot) {
      await requireVersion(files, layout.release(slot), slot);
      const live = await readSlotLink(files, layout.current);
      if (live !== null && live !== slot) {
        await switchLink(files, linkTarget(live), layout.former);
      }
      await point(slot);
      return 'switched';
    },
    async commit(slot) {
      const live = await readSlotLink(files, layout.current);
      if (live !== slot) {
        throw new Problem(
          'E_NOT_ALLOWED_NOW',
          `cannot commit ${slot}: ${layout.current} points to ${live ?? 'no version'}`,
        );
      }
      const former = await readSlotLink(files, layout.former);
      if (former !== null && former !== slot) {
        await switchLink(files, linkTarget(former), layout.previous);
      }
      await removeFile(files, layout.former);
    },
    async rollBackTo(slot) {
      if (slot === null) await removeFile(files, layout.current);
      else await point(slot);
      await removeFile(files, layout.former);
      return 'switched';
    },
  };
}

/** The slot that a link of ours names; null when there is no link, something else, or a foreign target. */
export async function readSlotLink(files: FilePort, path: string): Promise<string | null> {
  const found = await files.stat(path);
  return found?.kind === 'link' ? slotOfLink(await files.readlink(path)) : null;
}

/** A link to nothing would stop the service: the version must be there before `current` names it. */
async function requireVersion(files: FilePort, path: string, slot: string): Promise<void> {
  const found = isDirectorySlot(slot) ? await files.stat(path) : null;
  if (found?.kind !== 'directory') {
    throw new Problem('E_SLOT', `slot ${slot} holds no version: ${path} is no directory`, { path });
  }
}
