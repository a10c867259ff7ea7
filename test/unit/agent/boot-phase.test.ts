import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { bootPhases } from '#/agent/adapters/boot-phase.ts';
import { nodeFiles } from '#/agent/adapters/file-port.ts';

const [OLD, NEW] = ['11111111-0000-8000-8000-000000000001', '22222222-0000-8000-8000-000000000002'];
let state = '';
beforeEach(() => (state = mkdtempSync(join(tmpdir(), 'sb-phase-'))));
afterEach(() => rmSync(state, { recursive: true }));
const put = (name: string, text: string): void => writeFileSync(join(state, name), text);

describe('how far a boot came', () => {
  it.each([
    ['initrd', 'its initrd'],
    ['userspace', 'its user space'],
    ['agent', 'its agent'],
  ])('F36 the trial stopped after %s', async (phase, words) => {
    put('boot-phase.former', `${NEW.toUpperCase()} boot-1 ${phase}\n`);
    expect(await bootPhases(nodeFiles(), state).reachedBefore(NEW, 'boot-1')).toBe(words);
  });

  it('F36 no mark, one of the other slot, or a damaged one: the new slot never came to its initrd', async () => {
    const phases = bootPhases(nodeFiles(), state);
    expect(await phases.reachedBefore(NEW, 'boot-1')).toBe('its kernel, at most');
    put('boot-phase.former', `${OLD} boot-1 agent\n`);
    expect(await phases.reachedBefore(NEW, 'boot-1')).toBe('its kernel, at most');
    put('boot-phase.former', `${NEW} boot-1 ${'x'.repeat(500)}`);
    expect(await phases.reachedBefore(NEW, 'boot-1')).toBe('its kernel, at most');
  });

  it('F36 the old slot has started twice since the trial was armed: nobody knows how far the new one came', async () => {
    put('boot-phase.former', `${OLD} boot-3 initrd\n`);
    expect(await bootPhases(nodeFiles(), state).reachedBefore(NEW, 'boot-1')).toMatch(/^unknown/);
  });

  it('the agent carries the mark of its own boot on, and makes none where no initrd did', async () => {
    const phases = bootPhases(nodeFiles(), state);
    await phases.markAgent();
    expect(() => readFileSync(join(state, 'boot-phase'))).toThrow(/ENOENT/);
    put('boot-phase', `${NEW} boot-2 userspace\n`);
    await phases.markAgent();
    expect(readFileSync(join(state, 'boot-phase'), 'utf8')).toBe(`${NEW} boot-2 agent\n`);
  });
});
