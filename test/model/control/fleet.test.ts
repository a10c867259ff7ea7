import { describe, expect, it } from 'vitest';
import { exploreFleet } from '#/test/support/control/explore-fleet.ts';
import { planted, small } from './planted.ts';

const policy = { canaryCount: 1, wavePercents: [100], soakSeconds: 0 };

describe('every history of a small fleet', () => {
  it('F71 F77 two hosts, a lost ack, a halt, a failure: nothing is counted twice, offered twice, opened early or lost', () => {
    const found = exploreFleet(small);
    expect(found.broken).toBeNull();
    expect(found.states).toBeGreaterThan(1000);
    expect(found.ends).toBeGreaterThan(0);
  });

  it('F71 three hosts without trouble all come to rest', () => {
    const found = exploreFleet({ hosts: 3, lostAcks: 0, halts: 0, failures: 1, policy });
    expect(found.broken).toBeNull();
  });
});

describe('the exploration can fail: each planted fault is found, by its promise', () => {
  it.each(Object.keys(planted))('%s', (name) => {
    const [faults, promise] = planted[name] ?? [{}, ''];
    const { broken } = exploreFleet(small, faults);
    expect(broken?.what.slice(0, 2)).toBe(promise);
    expect(broken?.trace.length).toBeGreaterThan(1);
  });
});
