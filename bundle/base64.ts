/** Standard, padded, canonical base64: one byte string, one spelling. */

/** The base64 of some bytes. */
export function base64Of(bytes: Uint8Array): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString('base64');
}

/** Bytes of canonical base64, or null. */
export function bytesOfBase64(text: string): Uint8Array | null {
  const buffer = Buffer.from(text, 'base64');
  return buffer.toString('base64') === text ? buffer : null;
}
