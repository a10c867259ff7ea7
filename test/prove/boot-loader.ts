/**
 * T5: what GRUB itself sees of ORDER after a power cut at any moment of a row of decisions, acknowledged and not. The agent's
 * backend writes; each write is lost, whole, or there by any of its sectors or up to any byte; GRUB (grub-emu, its own drivers
 * and script) reads each such disk. An acknowledged decision that GRUB does not see is lost.
 */
import { grubBackend } from '#/agent/adapters/boot/grub.ts';
import { initialOrder, readOrder } from '#/agent/adapters/boot/order.ts';
import { nodeFiles } from '#/agent/adapters/file-port.ts';
import { type GrubView, grubDisk, hasGrub, VIEWS_MAX } from '#/test/support/boot/grub-disk.ts';
import { tornWrites } from '#/test/support/boot/torn-writes.ts';
import { drawn, type Family, type Finding } from './family.ts';

const DECISIONS = 24;
const states = { ci: 300, full: 2_000, long: 20_000 } as const;

interface Cut {
  readonly region: Uint8Array;
  readonly allowed: ReadonlySet<GrubView>;
  readonly name: string;
  readonly isAcknowledged: boolean;
}

export const bootLoaderView: Family = {
  name: 'boot-loader',
  isLight: true,
  what: 'every decision seen by the real GRUB after a power cut, every sector and byte of its write',
  async run({ seed, scale, say }) {
    if (!hasGrub()) {
      say('left out: packaging/install-test-tools.sh installs grub-emu and the tools for its disk');
      return { cases: 0, states: 0, findings: [] };
    }
    const cuts = await decide();
    const chosen = drawn(cuts, states[scale], seed);
    const findings: Finding[] = [];
    using disk = grubDisk();
    for (let from = 0; from < chosen.length; from += VIEWS_MAX) {
      const part = chosen.slice(from, from + VIEWS_MAX);
      const views = disk.views(part.map(({ region }) => region));
      for (const [index, cut] of part.entries()) {
        const seen = views[index] ?? '-';
        if (cut.allowed.has(seen)) continue;
        const text = `${cut.name}: GRUB sees ${seen}, not ${[...cut.allowed].join(' or ')}`;
        findings.push({ fault: cut.isAcknowledged ? 'lost' : 'wrong', text });
      }
    }
    return { cases: DECISIONS, states: chosen.length, findings };
  },
};

/** What the agent itself takes the region for, in GRUB's letters. */
function viewOf(region: Uint8Array): GrubView {
  const order = readOrder(region).found?.order ?? null;
  if (order === null) return '-';
  if (order.trial === null) return order.default;
  return order.trial === 'a' ? 'A' : 'B';
}

/** Runs a row of decisions and collects every disk that a power cut may leave of it. */
async function decide(): Promise<readonly Cut[]> {
  let live = initialOrder('a', 'console=ttyS0 panic=5');
  const cuts: Cut[] = [];
  let name = '';
  const backend = grubBackend({
    region: {
      read: (sizeBytes) => Promise.resolve(live.slice(0, sizeBytes)),
      write(position, bytes) {
        const after = new Uint8Array(live);
        after.set(bytes, position);
        const allowed = new Set([viewOf(live), viewOf(after)]);
        for (const torn of tornWrites(live, position, bytes))
          cuts.push({ region: torn, allowed, name, isAcknowledged: false });
        live = after;
        return Promise.resolve();
      },
    },
    files: nodeFiles(),
    esp: '/nowhere',
    runningArguments: '',
  });
  const standing = { default: 'a', other: 'b' } as { default: 'a' | 'b'; other: 'a' | 'b' };
  for (let decision = 0; decision < DECISIONS; decision += 1) {
    const { default: good, other } = standing;
    name = `decision ${decision + 1}`;
    await backend.markBad(other);
    await backend.installBootFiles(other, {
      ...{ artifactId: 'a'.repeat(64) as never, version: String(decision) },
      source: { kind: 'linux', kernel: '/boot/vmlinuz', initrd: null },
      // Lengths differ, so that every field of the copy moves.
      kernelArguments: `console=ttyS0 ${'x'.repeat((decision * 37) % 300)}`,
    });
    await backend.arm(other, (decision % 3) + 1);
    if (decision % 3 === 0) await backend.disarm(other);
    else if (decision % 3 === 1) await backend.setDefault(good, other);
    else {
      await backend.commit(other);
      standing.default = other;
      standing.other = good;
    }
    // Acknowledged: whatever is torn of the next write to come, this one is seen; and quiet disks show it too.
    const region = new Uint8Array(live);
    cuts.push({ region, allowed: new Set([viewOf(live)]), name, isAcknowledged: true });
  }
  return cuts;
}
