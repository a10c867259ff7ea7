#!/bin/sh
# Data for test/bench/install.ts: an ext4 image of 1,400 MiB, about half of it used, as a Debian root has it.
#
#   make-image.sh OUT [TREE]
#
# TREE: a directory with the content. Without it a Debian root is made with mmdebstrap where that is installed; otherwise
# up to 700 MiB of this machine's /usr are taken, which compresses much like one.
set -eu

out=$1
tree=${2:-}
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

if [ -z "$tree" ]; then
  tree=$scratch/root
  if command -v mmdebstrap >/dev/null; then
    mmdebstrap --variant=important --include=python3,nginx-light,openssl,nodejs,build-essential stable "$tree"
  else
    mkdir -p "$tree/usr"
    limit=$((700 * 1024))
    used=0
    for part in bin sbin lib/systemd lib/python3 share/perl lib/x86_64-linux-gnu lib/aarch64-linux-gnu lib/gcc share; do
      [ -d "/usr/$part" ] || continue
      size=$(du -skx "/usr/$part" | cut -f1)
      if [ $((used + size)) -gt "$limit" ]; then
        # As much of a part that is too large as there is room for, whole files in the order of their names.
        (cd /usr && find "$part" -xdev -type f -size -32M -printf '%k %p\n' | sort -k2 |
          awk -v left=$((limit - used)) '{ if ($1 > left) exit; left -= $1; sub(/^[0-9]+ /, ""); print }' |
          tar -cf - -T - | tar -xf - -C "$tree/usr")
        break
      fi
      tar -C /usr -cf - --one-file-system "$part" | tar -xf - -C "$tree/usr"
      used=$((used + size))
    done
  fi
fi

rm -f "$out"
truncate -s 1400M "$out"
# Fixed ids and times: the same tree gives the same image.
E2FSPROGS_FAKE_TIME=1700000000 mke2fs -q -t ext4 -F -d "$tree" -U 00000000-0000-4000-8000-000000000001 \
  -E hash_seed=00000000-0000-4000-8000-000000000002,lazy_itable_init=0,root_owner=0:0 "$out"
