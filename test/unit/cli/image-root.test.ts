import { mkdirSync, mkdtempSync, readFileSync, readlinkSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { forgetBuilder } from '#/control/cli/image/root.ts';

describe('a root that mmdebstrap made', () => {
  let root = '';
  beforeEach(() => {
    root = mkdtempSync(join(tmpdir(), 'image-root-'));
    mkdirSync(join(root, 'etc'));
    writeFileSync(join(root, 'etc/hostname'), 'builder-7\n');
    writeFileSync(join(root, 'etc/resolv.conf'), 'nameserver 10.1.2.3\n');
  });
  afterEach(() => rmSync(root, { recursive: true }));

  it('has neither name nor name servers of the machine that made it', async () => {
    await forgetBuilder(root);
    expect(readFileSync(join(root, 'etc/hostname'), 'utf8')).toBe('localhost\n');
    expect(() => readFileSync(join(root, 'etc/resolv.conf'))).toThrow('ENOENT');
  });

  it('asks systemd-resolved where that is installed', async () => {
    mkdirSync(join(root, 'lib/systemd'), { recursive: true });
    writeFileSync(join(root, 'lib/systemd/systemd-resolved'), '');
    await forgetBuilder(root);
    expect(readlinkSync(join(root, 'etc/resolv.conf'))).toBe(
      '../run/systemd/resolve/stub-resolv.conf',
    );
  });
});
