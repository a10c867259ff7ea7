import { describe, expect, it } from 'vitest';
import { judgeWatchdog, spanMs, type WatchdogSight } from '#/agent/cli/watchdog.ts';

const fed: WatchdogSight = {
  device: '/dev/watchdog0',
  identity: 'i6300ESB timer',
  runtimeMs: 30_000,
  hypervisor: 'kvm',
};

describe('doctor on the watchdog', () => {
  it('a VM without a device is told how its hypervisor gives it one', () => {
    const { finding, reach } = judgeWatchdog({ ...fed, device: null, identity: null });
    expect(finding.verdict).toBe('warning');
    expect(finding.act).toMatch(/i6300esb.*RuntimeWatchdogSec/);
    expect(reach).toContain('stays hung');
  });

  it('a device that nobody feeds rescues nobody', () => {
    for (const runtimeMs of [0, null]) {
      const { finding, reach } = judgeWatchdog({ ...fed, runtimeMs });
      expect(finding.verdict).toBe('warning');
      expect(finding.act).toContain('RuntimeWatchdogSec');
      expect(reach).toContain('stays hung');
    }
  });

  it('a fed device is fine, and says what it does not reach', () => {
    const { finding, reach } = judgeWatchdog(fed);
    expect(finding).toMatchObject({ verdict: 'ok', act: null });
    expect(finding.seen).toContain('RuntimeWatchdogSec=30s');
    expect(reach).toContain('firmware');
  });

  it('a watchdog inside the kernel is not taken for one that survives the kernel', () => {
    const { finding, reach } = judgeWatchdog({ ...fed, identity: 'Software Watchdog' });
    expect(finding.verdict).toBe('warning');
    expect(reach).toContain('a hung kernel is not');
  });

  it('spans as systemd prints them', () => {
    expect(['30s', '1min 30s', '500ms', '0', 'infinity'].map(spanMs)).toEqual([
      30_000, 90_000, 500, 0, 0,
    ]);
  });
});
