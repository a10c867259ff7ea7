/**
 * The outline of a zstd frame (RFC 8878, section 3.1.1). The decoder of the runtime accepts several frames, skippable frames
 * and what follows them; a stored chunk is exactly one frame, so that nothing rides along.
 */

const MAGIC = 0xfd2fb528;
const CHECKSUM_BYTES = 4;

/** True when `bytes` are exactly one zstd frame without a dictionary, by its outline. */
export function isSingleFrame(bytes: Uint8Array): boolean {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (bytes.byteLength < 9 || view.getUint32(0, true) !== MAGIC) return false;
  const descriptor = view.getUint8(4);
  const isSingleSegment = (descriptor & 0x20) !== 0;
  if ((descriptor & 0x0b) !== 0) return false;
  const sizeFlag = descriptor >> 6;
  const sizeBytes = sizeFlag === 0 ? (isSingleSegment ? 1 : 0) : 1 << sizeFlag;
  let at = 5 + (isSingleSegment ? 0 : 1) + sizeBytes;
  for (let isLast = false; !isLast; ) {
    if (at + 3 > bytes.byteLength) return false;
    const header = view.getUint16(at, true) | (view.getUint8(at + 2) << 16);
    const type = (header >> 1) & 3;
    isLast = (header & 1) === 1;
    // Raw and compressed blocks have their size; a repeated byte has one; type 3 is reserved.
    if (type === 3) return false;
    at += 3 + (type === 1 ? 1 : header >> 3);
  }
  const hasChecksum = (descriptor & 0x04) !== 0;
  return at + (hasChecksum ? CHECKSUM_BYTES : 0) === bytes.byteLength;
}
