/**
 * The configuration of GRUB for two slots: reads ORDER, counts tries, boots. The rules are those of docs/specs/partitions.md,
 * section 2; `order.ts` has the same for the agent. Written once, by the image kit; it never changes with a version.
 */
import type { PartitionSlot } from './backend.ts';
import { checkedArguments } from './kernel-arguments.ts';

export interface GrubLayout {
  /** Partition numbers in the GPT that GRUB was started from. */
  readonly numbers: { readonly env: number; readonly rootA: number; readonly rootB: number };
  /** PARTUUIDs of the roots. */
  readonly partUuid: Readonly<Record<PartitionSlot, string>>;
  /** Kernel arguments of both slots when ORDER is lost: the console and `panic=`. */
  readonly lostArguments: string;
  /** `serial` says what it does on the first serial port too. */
  readonly console?: 'screen' | 'serial';
  /** Seconds in which ESC on the console stops the boot and gives a command line; no such moment when left out. */
  readonly waitSeconds?: number;
}

/** Where the file of tries lies on the ESP, from its root. */
export const TRIES_PATH = '/EFI/switchback/tries.env';

/** The text of grub.cfg. Works with GRUB 2.04 and later on BIOS and EFI; modules: `grubModules`. */
export function grubConfig(layout: GrubLayout): string {
  const { numbers, partUuid } = layout;
  const lost = checkedArguments(layout.lostArguments);
  return `# Switchback: boots what ORDER says. Generated; format and rules in docs/specs/partitions.md.
${layout.console === 'serial' ? SERIAL : ''}esp="$root"
regexp --set=1:disk '^([^,]+)' "$esp"
tries_file="($esp)${TRIES_PATH}"

# One copy of ORDER into the variables sb_*, if it is valid.
function read_copy {
  unset seq; unset end; unset v; unset default; unset trial; unset tries; unset arm; unset bad; unset args_a; unset args_b
  load_env --file "($disk,gpt${numbers.env})$1+2" seq end v default trial tries arm bad args_a args_b
  if [ "$seq" != "$end" -o "$v" != 1 ]; then return; fi
  if regexp '^[1-9][0-9][0-9][0-9][0-9][0-9][0-9][0-9][0-9]$' "$seq"; then true; else return; fi
  if [ "$default" != a -a "$default" != b ]; then return; fi
  if [ -n "$sb_seq" ]; then if [ "$seq" -le "$sb_seq" ]; then return; fi; fi
  sb_seq="$seq"; sb_default="$default"; sb_trial="$trial"; sb_tries="$tries"; sb_arm="$arm"; sb_bad="$bad"
  sb_args_a="$args_a"; sb_args_b="$args_b"
}

# Counts one try of the trial. Sets sb_go=yes once that is written down and reads back.
function count_try {
  sb_go=no
  unset tried; unset used
  if load_env --file "$tries_file" tried used; then true; else return; fi
  if [ "$tried" != "$sb_arm" ]; then next=1
  elif [ "$used" = 1 -a "$sb_tries" != 1 ]; then next=2
  elif [ "$used" = 2 -a "$sb_tries" = 3 ]; then next=3
  else return
  fi
  tried="$sb_arm"; used="$next"
  if save_env --file "$tries_file" tried used; then true; else return; fi
  unset tried; unset used
  if load_env --file "$tries_file" tried used; then true; else return; fi
  if [ "$tried" = "$sb_arm" -a "$used" = "$next" ]; then sb_go=yes; fi
}

# Boots a slot; comes back only when its kernel cannot be loaded.
function boot_slot {
  echo "Switchback: booting slot $1 ($2)"
  if [ "$1" = a ]; then
    root="$disk,gpt${numbers.rootA}"
    if linux /boot/vmlinuz root=PARTUUID=${partUuid.a} ro $sb_args_a; then true; else return; fi
  else
    root="$disk,gpt${numbers.rootB}"
    if linux /boot/vmlinuz root=PARTUUID=${partUuid.b} ro $sb_args_b; then true; else return; fi
  fi
  if [ -f /boot/initrd.img ]; then
    if initrd /boot/initrd.img; then true; else return; fi
  fi
  boot
}

# Decides and boots.
function boot_order {
  unset sb_seq
  read_copy 0
  read_copy 8
  unset default

  sb_go=no
  if [ "$sb_trial" = a -o "$sb_trial" = b ]; then
    if [ "$sb_trial" != "$sb_default" -a "$sb_trial" != "$sb_bad" ]; then
      if [ "$sb_tries" = 1 -o "$sb_tries" = 2 -o "$sb_tries" = 3 ]; then
        if regexp '^[1-9][0-9][0-9][0-9][0-9][0-9][0-9][0-9][0-9]$' "$sb_arm"; then count_try; fi
      fi
    fi
  fi
  if [ "$sb_go" = yes ]; then boot_slot "$sb_trial" trial; fi
  if [ -z "$sb_seq" ]; then
    sb_default=a; sb_args_a="${lost}"; sb_args_b="${lost}"
  fi
  boot_slot "$sb_default" default
  if [ "$sb_default" = a ]; then sb_other=b; else sb_other=a; fi
  if [ "$sb_bad" != "$sb_other" ]; then boot_slot "$sb_other" "in place of $sb_default"; fi
  echo "Switchback: no slot can be booted"
  sleep 10
  reboot
}

${layout.waitSeconds === undefined ? 'boot_order' : waiting(layout.waitSeconds)}
`;
}

/** What the core image must hold or find: no more than the configuration uses. */
export const grubModules: readonly string[] = [
  ...['part_gpt', 'fat', 'ext2', 'normal', 'linux', 'loadenv', 'test', 'regexp', 'echo'],
  ...['sleep', 'reboot', 'true', 'boot', 'configfile'],
];

const SERIAL = `serial --unit=0 --speed=115200
terminal_input serial console
terminal_output serial console
`;

function waiting(seconds: number): string {
  return `echo "Switchback: ESC for a command line"
if sleep --interruptible ${seconds}; then boot_order; fi`;
}
