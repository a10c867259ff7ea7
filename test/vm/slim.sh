#!/bin/sh
# Hook of the image kit: leaves out of a root what these VMs never use, so that emulated ones write, read and boot less.
set -eu
root=$1
cd "$root"
kernel=$(echo lib/modules/*)
for directory in arch/x86/kvm arch/x86/crypto sound net/wireless net/bluetooth drivers/net/ethernet drivers/infiniband drivers/gpu drivers/media drivers/usb drivers/iio \
  drivers/hwmon drivers/input drivers/scsi drivers/nvme drivers/md drivers/target drivers/net/wireless fs/xfs fs/btrfs fs/ocfs2 fs/nfsd fs/smb \
  fs/ceph fs/gfs2 fs/f2fs fs/reiserfs fs/jfs fs/cifs net/sched net/netfilter net/openvswitch net/ceph net/sctp net/tipc net/rds; do
  rm -rf "$kernel/kernel/$directory"
done
chroot . depmod "${kernel##*/}"
rm -rf usr/share/zoneinfo usr/share/i18n usr/share/locale usr/share/perl5 usr/share/doc usr/share/info usr/share/man usr/share/lintian \
  usr/share/bash-completion usr/lib/x86_64-linux-gnu/gconv usr/lib/x86_64-linux-gnu/perl-base/unicore usr/share/polkit-1 usr/lib/x86_64-linux-gnu/perl boot/System.map*
