/** Kernel arguments that go through boot loaders, each with an own language: only what none of them reads as a word of its own. */
import { Problem } from '#/protocol/errors.ts';

export const KERNEL_ARGUMENTS_MAX_BYTES = 440;

/**
 * The arguments with single spaces; E_BOOT when a character, the length or a `root=` is not allowed. A mapped root (dm-verity
 * over the slot) may stand there: the later one wins in the kernel, the PARTUUID before it still tells the slot.
 */
export function checkedArguments(text: string): string {
  const clean = text.trim().replaceAll(/ +/g, ' ');
  const strange = /[^A-Za-z0-9 _.,:=/@%+-]/.exec(clean)?.[0];
  if (strange !== undefined) {
    throw new Problem('E_BOOT', `kernel arguments hold ${JSON.stringify(strange)}`, {
      arguments: clean.slice(0, 512),
    });
  }
  if (clean.length > KERNEL_ARGUMENTS_MAX_BYTES) {
    const limit = KERNEL_ARGUMENTS_MAX_BYTES;
    throw new Problem('E_BOOT', `kernel arguments of ${clean.length} bytes, at most ${limit}`);
  }
  const root = clean.split(' ').find((one) => /^root(?:=(?!\/dev\/mapper\/)|$)/.test(one));
  if (root !== undefined) {
    throw new Problem('E_BOOT', `kernel arguments hold ${root}: the root is that of the slot`);
  }
  return clean;
}
