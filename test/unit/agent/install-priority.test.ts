import { describe, expect, it } from 'vitest';
import { withPriority } from '#/agent/install/priority.ts';

const everything = (): boolean => true;

describe('the priority of an install', () => {
  it('low: nice and the lowest best-effort class of the disk, in front of the command', () => {
    expect(withPriority(['node', 'child'], { cpu: 'low', io: 'low' }, everything)).toEqual(
      '/usr/bin/nice -n 10 /usr/bin/ionice -c 2 -n 7 node child'.split(' '),
    );
  });

  it('idle: only what nobody else wants', () => {
    expect(withPriority(['node'], { cpu: 'idle', io: 'idle' }, everything)).toEqual(
      '/usr/bin/chrt --idle 0 /usr/bin/ionice -c 3 node'.split(' '),
    );
  });

  it('normal, or a host without the programs: the command alone', () => {
    expect(withPriority(['node'], { cpu: 'normal', io: 'normal' }, everything)).toEqual(['node']);
    expect(withPriority(['node'], { cpu: 'low', io: 'idle' }, () => false)).toEqual(['node']);
  });
});
