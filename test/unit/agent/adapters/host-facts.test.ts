import { expect, it } from 'vitest';
import { hasHypervisor } from '#/agent/adapters/host-facts.ts';

it.each([
  ['a guest of QEMU', 'processor\t: 0\nflags\t\t: fpu vme hypervisor lahf_lm\nbugs\t\t:\n', true],
  ['a machine', 'processor\t: 0\nflags\t\t: fpu vme lahf_lm\nmodel name\t: hypervisor\n', false],
  ['arm64, which says nothing', 'Features\t: fp asimd\n', false],
])('whether a host is virtual: %s', (_, cpuinfo, expected) => {
  expect(hasHypervisor(cpuinfo)).toBe(expected);
});
