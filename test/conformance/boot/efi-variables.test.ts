/** Entries of the firmware as efibootmgr reads them from the same variables, and a firmware that loses all of them. */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { decodeEntry, encodeEntry, nodeVariables } from '#/agent/adapters/boot/efi-variables.ts';
import { efiHost, withoutVariables } from '#/test/support/boot/efi-host.ts';
import { partUuids } from '#/test/support/boot/grub-disk.ts';

const esp = { number: 2, startSector: 2048, sectors: 8192, partUuid: partUuids.a };
const path = '\\EFI\\switchback\\b-b1b1b1b1b1b1.efi';
const hasTool = spawnSync('sh', ['-c', 'command -v efibootmgr']).status === 0;

describe('EFI', () => {
  it('an entry that was written is read as another one', () => {
    const value = encodeEntry('switchback-b', esp, path);
    expect(decodeEntry(value)).toEqual({ description: 'switchback-b', path });
    for (let size = 0; size < value.byteLength; size += 1)
      expect(() => decodeEntry(value.subarray(0, size))).not.toThrow();
  });

  it.skipIf(!hasTool)('efibootmgr sees other entries than the agent wrote', async () => {
    const directory = mkdtempSync(join(tmpdir(), 'switchback-efivars-'));
    try {
      const variables = nodeVariables(directory);
      await variables.write(
        'Boot0001',
        encodeEntry('switchback-a', esp, path.replace('\\b-', '\\a-')),
      );
      await variables.write('Boot000A', encodeEntry('switchback-b', esp, path));
      await variables.write('BootOrder', Buffer.from([1, 0, 10, 0]));
      await variables.write('BootNext', Buffer.from([10, 0]));
      expect(await variables.names()).toHaveLength(4);
      const { stdout } = spawnSync('efibootmgr', ['-v'], {
        encoding: 'utf8',
        env: { ...process.env, EFIVARFS_PATH: `${directory}/` },
      });
      expect(stdout).toContain('BootNext: 000A');
      expect(stdout).toContain('BootOrder: 0001,000A');
      expect(stdout).toMatch(
        /Boot000A\* switchback-b\s+HD\(2,GPT,11111111-1111-4111-8111-111111111111,0x800,0x2000\)\/File\(\\EFI\\switchback\\b-b1b1b1b1b1b1\.efi\)/,
      );
      await variables.remove('BootNext');
      expect(await variables.read('BootNext')).toBeNull();
    } finally {
      rmSync(directory, { recursive: true, force: true });
    }
  });

  it('F34 the variables are lost and the host does not boot its default', async () => {
    const first = await efiHost();
    expect(await withoutVariables(first).boot()).toBe('a');
    await first.backend.markBad('b');
    await first.backend.installBootFiles('b', first.files);
    await first.backend.arm('b', 1);
    expect(await withoutVariables(first).boot()).toBe('a');
    await first.boot();
    expect(await withoutVariables(first).boot()).toBe('a');
    await first.backend.commit('b');
    expect(await withoutVariables(first).boot()).toBe('b');
  });
});
