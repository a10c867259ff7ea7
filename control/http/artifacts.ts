/** Bundle files and the patches beside them: served with Range, If-Range and a strong ETag, straight from disk. */
import { createReadStream } from 'node:fs';
import { stat } from 'node:fs/promises';
import { join } from 'node:path';
import type { Readable } from 'node:stream';
import { Problem } from '#/protocol/errors.ts';

export const artifactsDir = (dataDir: string): string => join(dataDir, 'artifacts');

interface Range {
  readonly start: number;
  readonly end: number;
}

/** One range of `bytes=`; null: serve the whole file (several ranges, or none that we know). @throws E_RANGE with 416 */
export function parseRange(header: string, sizeBytes: number): Range | null {
  const match = /^bytes=(\d{0,15})-(\d{0,15})$/.exec(header.trim());
  if (match === null) return null;
  const [, first = '', last = ''] = match;
  if (first === '' && last === '') return null;
  const start = first === '' ? Math.max(0, sizeBytes - Number(last)) : Number(first);
  const end = first === '' || last === '' ? sizeBytes - 1 : Math.min(Number(last), sizeBytes - 1);
  if (start > end || start >= sizeBytes)
    throw new Problem('E_RANGE', `range ${header} of a file of ${sizeBytes} bytes`, {
      httpStatus: 416,
    });
  return { start, end };
}

/** A bundle or a patch, whole or a range of it. The name of a bundle is its content, so it never changes. */
export async function sendArtifact(
  dataDir: string,
  file: string,
  request: Request,
): Promise<{ ok: Readable | Uint8Array; status: number; headers: Record<string, string> }> {
  const path = join(artifactsDir(dataDir), file);
  const info = await stat(path).catch((cause: unknown) => {
    throw new Problem('E_NOT_FOUND', `control does not hold ${file}`, {}, { cause });
  });
  // A patch may be replaced by a better one for the same pair.
  const isPatch = file.endsWith('.patch');
  const etag = isPatch
    ? `"${info.size.toString(36)}-${info.mtimeMs.toString(36)}"`
    : `"${file.slice(0, 64)}"`;
  const common = {
    'content-type': 'application/octet-stream',
    'accept-ranges': 'bytes',
    'cache-control': isPatch ? 'public, max-age=3600' : 'public, max-age=31536000, immutable',
    etag,
  };
  if (request.headers.get('if-none-match') === etag)
    return { ok: new Uint8Array(), status: 304, headers: common };
  const ifRange = request.headers.get('if-range');
  const asked = request.headers.get('range');
  const range =
    asked === null || (ifRange !== null && ifRange !== etag) ? null : parseRange(asked, info.size);
  const isHead = request.method === 'HEAD';
  const { start, end } = range ?? { start: 0, end: info.size - 1 };
  const headers = {
    ...common,
    'content-length': String(end - start + 1),
    ...(range === null ? {} : { 'content-range': `bytes ${start}-${end}/${info.size}` }),
  };
  const ok =
    isHead || info.size === 0
      ? new Uint8Array()
      : createReadStream(path, { start, end, highWaterMark: 512 * 1024 });
  return { ok, status: range === null ? 200 : 206, headers };
}
