/** Every boot backend against one suite. */
import { afterAll, describe } from 'vitest';
import { efiHost } from '#/test/support/boot/efi-host.ts';
import {
  customHost,
  hasFwSetenv,
  removeHosts,
  ubootHost,
} from '#/test/support/boot/program-hosts.ts';
import { grubHost, systemdBootHost } from '#/test/support/boot/sim-hosts.ts';
import { backendConforms } from './backend.ts';

describe('boot backends', () => {
  afterAll(removeHosts);
  backendConforms('grub', () => Promise.resolve(grubHost()));
  backendConforms('systemd-boot', systemdBootHost);
  backendConforms('efi', efiHost);
  backendConforms('custom', () => Promise.resolve(customHost()));
  describe.skipIf(!hasFwSetenv())('with libubootenv', () => {
    backendConforms('uboot', () => Promise.resolve(ubootHost()));
  });
});
