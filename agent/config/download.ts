/** The section `download`: how an install uses the network, the processor and the disk. */
import * as v from 'valibot';

const whole = (min: number, max: number) =>
  v.pipe(v.number(), v.safeInteger(), v.minValue(min), v.maxValue(max));

export const downloadSettings = v.strictObject({
  bandwidthBytesPerS: v.optional(
    v.pipe(whole(0, 2 ** 40), v.description('Limit for downloads, 0 for none.')),
    0,
  ),
  parallel: v.optional(
    v.pipe(whole(1, 16), v.description('Ranges that are fetched at the same time.')),
    4,
  ),
  workers: v.optional(
    v.pipe(whole(0, 16), v.description('Threads that decompress and verify; 0: as many as help.')),
    0,
  ),
  patches: v.optional(
    v.pipe(
      v.boolean(),
      v.description('Take the patch from the live version where a source has one.'),
    ),
    true,
  ),
  cpuPriority: v.optional(
    v.pipe(
      v.picklist(['idle', 'low', 'normal']),
      v.description(
        'Of an install beside what else runs. `idle`: only when nobody else wants the processor.',
      ),
    ),
    'low',
  ),
  ioPriority: v.optional(
    v.pipe(
      v.picklist(['idle', 'low', 'normal']),
      v.description('The same for the disk, where its scheduler knows priorities.'),
    ),
    'low',
  ),
});
