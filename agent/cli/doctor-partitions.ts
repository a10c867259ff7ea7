/** What doctor says of a partition host: its partitions, its boot loader, and what that survives. */
import { readOwner } from '#/agent/adapters/lock.ts';
import type { BootBackend } from '#/agent/adapters/boot/backend.ts';
import { createExec } from '#/agent/adapters/exec.ts';
import { nodeFiles } from '#/agent/adapters/file-port.ts';
import { type BootView, nextBootText } from '#/agent/boot-view.ts';
import type { Settings } from '#/agent/config.ts';
import { partitionParts, viewBoot } from '#/agent/partition-parts.ts';
import { isProblem } from '#/protocol/errors.ts';
import { join } from 'node:path';
import type { Finding } from './doctor.ts';

/** Findings about slots and boot loader, in a fixed order. */
export async function examinePartitions(settings: Settings): Promise<readonly Finding[]> {
  try {
    const parts = await partitionParts(settings, { files: nodeFiles(), exec: createExec() });
    const view = await viewBoot(parts);
    // An agent that runs may be writing the record: then it is only read.
    const isFree = readOwner(join(settings.state.directory, 'lock')) === null;
    const unfit = isFree ? await selfTest(parts.backend) : [];
    return [
      ...view.slots.map((slot) => partitionFinding(view, slot)),
      runningFinding(view),
      loaderFinding(view, unfit),
      ...survivalFindings(parts.backend),
    ];
  } catch (error) {
    if (!isProblem(error)) throw error;
    const act = 'switchback-agent config check; docs/specs/partitions.md has the layout.';
    return [{ subject: 'boot loader', verdict: 'broken', seen: error.message, act }];
  }
}

async function selfTest(backend: BootBackend): Promise<readonly string[]> {
  try {
    return await backend.selfTest();
  } catch (error) {
    if (!isProblem(error)) throw error;
    return [error.message];
  }
}

function partitionFinding(view: BootView, of: BootView['slots'][number]): Finding {
  const subject = `slot ${of.slot}`;
  if (of.device === null) {
    return {
      subject,
      verdict: 'broken',
      seen: view.problems.find((problem) => problem.startsWith('E_DISK')) ?? 'not there',
      act: `Set slots.partition_${of.slot}; lsblk -o NAME,PARTLABEL,PARTUUID shows what is there.`,
    };
  }
  const size = `${Math.floor((of.sizeBytes ?? 0) / 1024 / 1024)} MiB`;
  const seen = `${of.device}, ${size}, PARTUUID ${of.partUuid}`;
  return { subject, verdict: 'ok', seen, act: null };
}

function runningFinding(view: BootView): Finding {
  const subject = 'running slot';
  const running = view.slots.find((slot) => slot.running);
  if (running !== undefined) return { subject, verdict: 'ok', seen: running.slot, act: null };
  return {
    subject,
    verdict: 'broken',
    seen: 'the mounted root is neither slot, or not the root that the kernel was told',
    act: 'Boot one of the slots: nothing is installed from a third root (root=PARTUUID=… in /proc/cmdline).',
  };
}

function loaderFinding(view: BootView, unfit: readonly string[]): Finding {
  const subject = `boot loader ${view.loader}`;
  const problems = [...view.problems.filter((problem) => !problem.startsWith('E_DISK')), ...unfit];
  if (problems.length === 0) return { subject, verdict: 'ok', seen: nextBootText(view), act: null };
  return {
    subject,
    verdict: view.default === null || unfit.length > 0 ? 'broken' : 'warning',
    seen: problems.join('; '),
    act: 'docs/specs/partitions.md says what the loader reads; nothing is installed until it can be written.',
  };
}

/** One finding for each thing that may happen: what this loader does about it. */
function survivalFindings({ survives }: BootBackend): readonly Finding[] {
  return survives.map(({ event, holds, how }) => ({
    subject: `survives: ${event}`,
    verdict: holds ? 'ok' : 'warning',
    seen: `${holds ? 'yes' : 'no'}. ${how}`,
    act: holds ? null : 'Take another boot loader where this matters.',
  }));
}
