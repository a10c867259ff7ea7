#!/bin/bash
# Data for `npm run bench`: two Debian roots as weekly versions, each as a tree and as an ext4 image of 1,400 MiB, and the
# image of a third one that is v1 with little changed.
#
#   make-data.sh DIRECTORY [MIRROR SECURITY_MIRROR]
#
# v1 is bookworm without security updates. v2 is made anew from the same list a week later, with the packages of UPGRADE
# taken from bookworm-security, one package more, one less, and a changed application: what a weekly update is.
# light is v1 with openssl from there and the changed application. Its initrd is v1's, as after `apt upgrade`, which makes
# none for a library: made anew it has libcrypto in it, and all of its compressed bytes are others.
# Needs root, mmdebstrap, e2fsprogs, gcc, zstd and a Debian mirror (those of this machine when none is named); about ten
# minutes on two cores. What is there already is kept. The images are reproducible as long as the mirror is the same.
set -euo pipefail
export LC_ALL=C
here=$(cd "$(dirname "$0")" && pwd)
directory=${1:?usage: make-data.sh DIRECTORY [MIRROR SECURITY_MIRROR]}
mkdir -p "$directory"
cd "$directory"

configured() { cat /etc/apt/sources.list.d/*.sources 2>/dev/null | sed -n 's/^URIs: *//p' | grep -m1 -E "$1"; }
mirror=${2:-$(configured '/debian/?$' || true)}
security=${3:-$(configured 'debian-security/?$' || true)}
if [ -z "$mirror" ] || [ -z "$security" ]; then
  echo 'this machine names no Debian mirror in /etc/apt/sources.list.d/*.sources: give both as arguments' >&2
  exit 2
fi
packages=systemd,systemd-sysv,udev,dbus,linux-image-cloud-amd64,iproute2,kmod,network-manager,openssh-server,ca-certificates,curl,sudo,chrony,nginx-light,nodejs,python3-numpy,python3-requests,git,mosquitto,less,nano
UPGRADE='openssl libssl3 nginx nginx-light nginx-common nginx-core libnginx-mod-http-echo nodejs libnode108 python3.11 python3.11-minimal libpython3.11-minimal libpython3.11-stdlib linux-image-cloud-amd64'
# The kernel's package has its version in its name; by its source all of them move together.
UPGRADE="$UPGRADE src:linux src:linux-signed-amd64"

root() { # version epoch packages upgraded sources...
  local version=$1 epoch=$2 include=$3 upgraded=$4
  shift 4
  [ -e "$version.tar" ] && return 0
  SOURCE_DATE_EPOCH=$epoch mmdebstrap --quiet --variant=minbase --format=tar --include="$include" \
    --aptopt='Apt::Install-Recommends "false"' --skip=output/mknod \
    --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
    --setup-hook="sh '$here/data-hooks.sh' pin \"\$1\" '$upgraded'" \
    --customize-hook="sh '$here/data-hooks.sh' customize \"\$1\" $version" \
    bookworm "$version.tar.new" "$@"
  mv "$version.tar.new" "$version.tar"
}
both=("deb $mirror bookworm main" "deb $security bookworm-security main")
root v1 1767225600 "$packages,telnet" "$UPGRADE" "${both[0]}" &
first=$!
root v2 1767830400 "$packages,tcpdump" "$UPGRADE" "${both[@]}" &
wait "$first"
wait $!
root light 1767830400 "$packages,telnet" 'openssl libssl3' "${both[@]}"

# mke2fs writes the times at which files were unpacked; with this every file has its time of modification alone.
[ -e stat-times.so ] || gcc -O2 -shared -fPIC -o stat-times.so "$here/stat-times.c" -ldl
for version in v1 v2 light; do
  if [ ! -e "$version.unpacked" ]; then
    rm -rf "$version"
    mkdir "$version"
    tar -x --numeric-owner -C "$version" -f "$version.tar"
    find "$version" \( -type b -o -type c \) -delete
    [ "$version" != light ] || cp -p v1/boot/initrd.img-* light/boot/
    touch "$version.unpacked"
  fi
  if [ ! -e "$version.img" ]; then
    rm -f "$version.img.new"
    truncate -s 1400M "$version.img.new"
    LD_PRELOAD=$PWD/stat-times.so E2FSPROGS_FAKE_TIME=1767225600 mke2fs -q -t ext4 -b 4096 -m 0 -N 65536 -L root \
      -U 00000000-0000-4000-8000-000000000001 -O ^has_journal -d "$version" \
      -E hash_seed=00000000-0000-4000-8000-000000000002,lazy_itable_init=0,root_owner=0:0 "$version.img.new"
    mv "$version.img.new" "$version.img"
  fi
  [ "$version" != light ] || continue
  [ -e "$version.img.zst" ] || { zstd -q -f -9 -T0 "$version.img" -o new.zst && mv new.zst "$version.img.zst"; }
  [ -e "$version.tar.zst" ] || { tar --sort=name --numeric-owner -C "$version" -cf - . | zstd -q -f -9 -T0 -o new.zst && mv new.zst "$version.tar.zst"; }
done
