/**
 * How far a boot came: a mark that the initrd of a slot begins and that user space and the agent carry on. When a host is back
 * on its old slot, the mark of the boot before says where the new one stopped. For people; nothing is decided by it.
 * Format: docs/specs/images.md, section 3.
 */
import { join } from 'node:path';
import type { FilePort } from '#/agent/ports.ts';
import { isProblem } from '#/protocol/errors.ts';
import { readFile, replaceFile } from './durable.ts';

const MARK_MAX_BYTES = 256;
const PHASES: Readonly<Record<string, string>> = {
  initrd: 'its initrd',
  userspace: 'its user space',
  agent: 'its agent',
};

const NOT_ITS_INITRD = 'its kernel, at most';

export interface BootPhases {
  /**
   * Where the boot before this one stopped, if it was one of this root partition. If it was that in which the trial was armed, the
   * partition never came to its initrd.
   */
  reachedBefore(partUuid: string, armBootId: string): Promise<string>;
  /** The agent runs in this boot. A no-op without the mark of an initrd. */
  markAgent(): Promise<void>;
}

/** The marks in the state directory. */
export function bootPhases(files: FilePort, stateDirectory: string): BootPhases {
  const current = join(stateDirectory, 'boot-phase');
  const read = async (path: string): Promise<readonly string[]> => {
    try {
      const bytes = await readFile(files, path, MARK_MAX_BYTES);
      return bytes === null ? [] : Buffer.from(bytes).toString('latin1').trim().split(' ');
    } catch (error) {
      // A mark that cannot be read says nothing.
      if (isProblem(error, 'E_IO', 'E_STATE', 'E_TOOBIG')) return [];
      throw error;
    }
  };
  return {
    async reachedBefore(partUuid, armBootId) {
      const [root, bootId, phase = ''] = await read(`${current}.former`);
      if (root?.toLowerCase() === partUuid.toLowerCase()) return PHASES[phase] ?? NOT_ITS_INITRD;
      // The old slot has started more than once since; its own mark has taken the place of the other's.
      if (bootId !== undefined && bootId !== armBootId)
        return 'unknown, the host has restarted since';
      return NOT_ITS_INITRD;
    },
    async markAgent() {
      const [root, bootId, phase] = await read(current);
      if (root === undefined || bootId === undefined || phase === 'agent') return;
      try {
        await replaceFile(files, current, Buffer.from(`${root} ${bootId} agent\n`));
      } catch (error) {
        // A disk that takes no more writes is found and told by those that matter.
        if (!isProblem(error)) throw error;
      }
    },
  };
}
