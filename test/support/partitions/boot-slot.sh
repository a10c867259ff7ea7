#!/bin/sh
# "Boots" a slot for a test: its file system becomes the root of a new mount namespace, the clock since boot begins anew, and
# boot id and kernel command line are those of this boot. What the agent then reads of its machine is real.
#
#   unshare --mount --propagation private --time --fork … boot-slot.sh DEVICE NEW_ROOT BOOT_DIR DATA RUN REPO COMMAND…
set -eu
device=$1 root=$2 boot=$3 data=$4 run=$5 repo=$6
shift 6
mount -n -t ext4 -o ro,noload "$device" "$root"
mount -n --rbind /dev "$root/dev"
mount -n --rbind /sys "$root/sys"
mount -n --bind /proc "$root/proc"
mount -n --bind "$boot/boot_id" "$root/proc/sys/kernel/random/boot_id"
mount -n --bind "$boot/cmdline" "$root/proc/cmdline"
mount -n --bind /usr "$root/usr"
mount -n --bind "$boot/programs" "$root/usr/local/sbin"
mount -n --bind "$data" "$root/data"
mount -n --bind "$run" "$root/run"
mount -n --bind "$repo" "$root/repo"
mount -n -t tmpfs tmpfs "$root/tmp"
exec chroot "$root" "$@"
