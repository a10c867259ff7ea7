import { expect, it } from 'vitest';
import { cleanEnvironment, environmentToDrop } from '#/agent/adapters/environment.ts';

it('H11 what Node or the C library would act on is dropped, and the agent starts anew without it', () => {
  const environment = {
    PATH: '/usr/bin',
    NODE_OPTIONS: '--inspect',
    MALLOC_CONF: 'x',
    SECRET: 'y',
  };
  expect(environmentToDrop(environment)).toEqual({
    dropped: ['NODE_OPTIONS', 'MALLOC_CONF', 'SECRET'],
    acted: ['NODE_OPTIONS', 'MALLOC_CONF'],
  });
});

it('the settings of the launcher for memory hold for the agent alone: no service inherits them', () => {
  const environment = { PATH: '/usr/bin', MALLOC_ARENA_MAX: '1', MALLOC_TRIM_THRESHOLD_: '131072' };
  expect(environmentToDrop(environment)).toEqual({
    dropped: ['MALLOC_ARENA_MAX', 'MALLOC_TRIM_THRESHOLD_'],
    acted: [],
  });
  expect(cleanEnvironment(environment)).toEqual({ PATH: '/usr/bin' });
});
