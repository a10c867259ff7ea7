/** What a power cut may leave of one write: nothing, any of its sectors, or its bytes up to or from any point. */
const SECTOR_BYTES = 512;
/** Beyond so many sectors subsets are no longer enumerated. */
const MAX_SECTORS = 8;

/** Disks after a cut write, the untouched and the whole one among them. */
export function* tornWrites(
  before: Uint8Array,
  position: number,
  bytes: Uint8Array,
): Generator<Uint8Array> {
  const sectors = Math.ceil(bytes.byteLength / SECTOR_BYTES);
  for (let subset = 0; subset < 2 ** Math.min(sectors, MAX_SECTORS); subset += 1) {
    const after = new Uint8Array(before);
    for (let sector = 0; sector < sectors; sector += 1) {
      if ((subset & (2 ** sector)) === 0) continue;
      const from = sector * SECTOR_BYTES;
      after.set(bytes.subarray(from, from + SECTOR_BYTES), position + from);
    }
    yield after;
  }
  for (let cut = 1; cut < bytes.byteLength; cut += 1) {
    const upTo = new Uint8Array(before);
    upTo.set(bytes.subarray(0, cut), position);
    yield upTo;
    const from = new Uint8Array(before);
    from.set(bytes.subarray(cut), position + cut);
    yield from;
  }
}
