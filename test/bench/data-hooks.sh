#!/bin/sh
# Hooks of mmdebstrap for make-data.sh.
#   data-hooks.sh pin ROOT PACKAGES       only these packages come from bookworm-security
#   data-hooks.sh customize ROOT VERSION  an application of its own; nothing that differs by chance
set -eu
root=$2
case $1 in
  pin)
    mkdir -p "$root/etc/apt/preferences.d"
    printf 'Package: *\nPin: release n=bookworm-security\nPin-Priority: 50\n\nPackage: %s\nPin: release n=bookworm-security\nPin-Priority: 990\n' \
      "$3" >"$root/etc/apt/preferences.d/bench"
    ;;
  customize)
    version=$3
    chroot "$root" dpkg-query -W >"$root/usr/share/packages.list"
    mkdir -p "$root/opt/app" "$root/etc/app"
    head -c 16777216 /dev/zero | openssl enc -aes-128-ctr -K 00112233445566778899aabbccddeeff -iv 00000000000000000000000000000000 >"$root/opt/app/app.bin"
    if [ "$version" != v1 ]; then
      for block in 100 5000 9000 20000 33333 40001 51234 60000; do
        printf 'changed in v2 %s' "$block" | dd of="$root/opt/app/app.bin" bs=256 seek="$block" conv=notrunc status=none
      done
    fi
    [ "$version" != v2 ] || printf 'MaxSessions 5\n' >>"$root/etc/ssh/sshd_config"
    printf '{"version":"%s","interval":300}\n' "$version" >"$root/etc/app/config.json"
    rm -f "$root"/etc/ssh/ssh_host_* "$root/etc/apt/preferences.d/bench" "$root/var/lib/dbus/machine-id"
    : >"$root/etc/machine-id"
    rm -rf "$root"/var/cache/apt/*.bin "$root"/var/log/*.log "$root"/var/log/apt/* "$root"/var/lib/apt/lists/*
    ;;
esac
