/** Every boot backend against one suite. */
import { describe } from 'vitest';
import { grubHost, systemdBootHost } from '#/test/support/boot/sim-hosts.ts';
import { backendConforms } from './backend.ts';

describe('boot backends', () => {
  backendConforms('grub', () => Promise.resolve(grubHost()));
  backendConforms('systemd-boot', systemdBootHost);
});
