/** Settings of the slots and of what boots them. */
import * as v from 'valibot';

const whole = (min: number, max: number) =>
  v.pipe(v.number(), v.safeInteger(), v.minValue(min), v.maxValue(max));
const path = v.pipe(v.string(), v.regex(/^\/[^\0]*$/, 'expected an absolute path'));
const partitionName = v.pipe(
  v.string(),
  v.regex(
    /^(?:PARTUUID=[0-9A-Fa-f-]{1,64}|PARTLABEL=[A-Za-z0-9_.-]{1,36}|\/dev\/[A-Za-z0-9_./-]{1,250})$/,
    'expected PARTUUID=…, PARTLABEL=… or /dev/…',
  ),
);
const partUuid = v.pipe(v.string(), v.regex(/^[0-9A-Fa-f-]{1,64}$/, 'expected a partition UUID'));

export const slotsSection = v.strictObject({
  kind: v.optional(
    v.pipe(
      v.picklist(['directory', 'partition']),
      v.description(
        'Versions live in directories behind the link `current`, or in two partitions.',
      ),
    ),
    'directory',
  ),
  root: v.optional(
    v.pipe(path, v.description('Directory mode: holds `releases/`, `current` and `previous`.')),
    '/opt/switchback',
  ),
  keep: v.optional(
    v.pipe(
      whole(2, 16),
      v.description('Directory mode: how many versions stay on disk, the live one included.'),
    ),
    2,
  ),
  reserveBytes: v.optional(
    v.pipe(whole(0, 2 ** 50), v.description('Free space that an install must leave.')),
    64 * 1024 * 1024,
  ),
  acceptOneWay: v.optional(
    v.pipe(
      v.boolean(),
      v.description(
        'Takes versions whose manifest says `oneWay`: one that fails its trial is not taken back, because the version before could not read the changed data.',
      ),
    ),
    false,
  ),
  partitionA: v.optional(
    v.pipe(
      partitionName,
      v.description(
        'Partition mode: the partition of slot `a`. A `/dev` path only without udev: names of disks change.',
      ),
    ),
    'PARTLABEL=switchback-root-a',
  ),
  partitionB: v.optional(
    v.pipe(partitionName, v.description('Partition mode: the partition of slot `b`.')),
    'PARTLABEL=switchback-root-b',
  ),
  partitionAUuid: v.optional(
    v.pipe(
      partUuid,
      v.description(
        'PARTUUID that slot `a` must have; needed where neither kernel nor udev tell it.',
      ),
    ),
  ),
  partitionBUuid: v.optional(v.pipe(partUuid, v.description('The same of slot `b`.'))),
});

export const bootSection = v.strictObject({
  loader: v.optional(
    v.pipe(
      v.picklist(['grub', 'systemd-boot', 'efi', 'uboot', 'custom']),
      v.description('Partition mode: what boots this host, and so how a slot is tried.'),
    ),
    'grub',
  ),
  esp: v.optional(
    v.pipe(path, v.description('Where the EFI system partition is mounted.')),
    '/boot/efi',
  ),
  env: v.optional(
    v.pipe(partitionName, v.description('grub: the raw partition that says which slot is booted.')),
    'PARTLABEL=switchback-env',
  ),
  program: v.optional(
    v.pipe(
      path,
      v.description('custom: the program with the verbs of docs/specs/partitions.md, section 6.'),
    ),
  ),
});
