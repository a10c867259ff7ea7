#!/usr/bin/env bash
# Debian packages that single tests need; with `bench`, also the peers of `npm run bench`.
# Each line says which; without them those tests are left out and say so.
set -euo pipefail

packages=(
  zsh fish          # completion scripts, run in the shells they are for
  systemd-container mmdebstrap iproute2   # test/nspawn: packages and guard in containers
  lintian dpkg-dev  # the packages
  strace            # the order of writes and syncs of the agent; kills at system calls
  shellcheck busybox-static   # the guard, in a second shell
  libubootenv-tool efibootmgr   # U-Boot's environment and entries of the firmware, by their own tools
  grub-emu gdisk dosfstools mtools   # boot loaders: the real GRUB boots small disks (test/conformance/boot)
  e2fsprogs   # switchback image: file systems
  grub-common grub-pc-bin grub-efi-amd64-bin systemd-boot-efi   # switchback image: boot loaders
  qemu-system-x86 qemu-utils ovmf   # test/vm: the disks, started
  xfsprogs btrfs-progs   # power cuts on real file systems
)
bench=(
  mmdebstrap e2fsprogs gcc libc6-dev zstd openssl curl iproute2   # its data and its measuring
  nginx-light                                                     # serves everybody
  swupdate cpio casync ostree rdiff xdelta3 mender-client         # the peers
)
if [ "${1:-}" = bench ]; then
  packages+=("${bench[@]}")
  # Installed to be run by the bench, not as services of this machine.
  if [ ! -e /usr/sbin/policy-rc.d ]; then
    printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d
    chmod 755 /usr/sbin/policy-rc.d
    trap 'rm -f /usr/sbin/policy-rc.d' EXIT
  fi
fi

missing=()
for package in "${packages[@]}"; do
  dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
done
[ "${#missing[@]}" = 0 ] && exit 0
apt-get update -qq
DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}"
