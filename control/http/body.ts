/** Request bodies: bounded in bytes, time and depth before anything looks at them (F81). */
import * as v from 'valibot';
import { parseStrictJson } from '#/bundle/strict-json.ts';
import { Problem } from '#/protocol/errors.ts';

/** A JSON body must be complete within this. */
export const JSON_BODY_DEADLINE_MS = 15_000;
/** An upload may pause at most this long. */
export const UPLOAD_IDLE_MS = 30_000;

/** Rejects when the work takes longer. */
async function within<T>(work: Promise<T>, ms: number, what: string): Promise<T> {
  const { promise, reject } = Promise.withResolvers<never>();
  const timer = setTimeout(
    () => reject(new Problem('E_TIMEOUT', `${what} within ${ms} ms`, { httpStatus: 408 })),
    ms,
  );
  try {
    return await Promise.race([work, promise]);
  } finally {
    clearTimeout(timer);
  }
}

/** The whole body. @throws E_TOOBIG, E_TIMEOUT */
export async function readBody(
  request: Request,
  maxBytes: number,
  deadlineMs: number,
): Promise<Uint8Array> {
  const announced = Number(request.headers.get('content-length') ?? 0);
  if (announced > maxBytes) throw tooBig(announced, maxBytes);
  if (request.body === null) return new Uint8Array();
  const endMs = performance.now() + deadlineMs;
  const reader = request.body.getReader();
  const parts: Uint8Array[] = [];
  let size = 0;
  try {
    for (;;) {
      const leftMs = Math.max(1, endMs - performance.now());
      const part = await within(reader.read(), leftMs, 'the body was not complete');
      if (part.done) return Buffer.concat(parts, size);
      size += part.value.length;
      if (size > maxBytes) throw tooBig(size, maxBytes);
      parts.push(part.value);
    }
  } finally {
    reader.releaseLock();
  }
}

function tooBig(sizeBytes: number, maxBytes: number): Problem {
  return new Problem('E_TOOBIG', `body of ${sizeBytes} bytes or more, at most ${maxBytes}`, {
    maxBytes,
    httpStatus: 413,
  });
}

/** An upload as chunks, bounded in size and in the pause between chunks. */
export async function* uploadOf(request: Request, maxBytes: number): AsyncGenerator<Uint8Array> {
  if (request.body === null) return;
  const reader = request.body.getReader();
  let size = 0;
  try {
    for (;;) {
      const part = await within(reader.read(), UPLOAD_IDLE_MS, 'the upload paused; no byte came');
      if (part.done) return;
      size += part.value.length;
      if (size > maxBytes) throw tooBig(size, maxBytes);
      yield part.value;
    }
  } finally {
    reader.releaseLock();
  }
}

/** First issue as `field: what was expected`. */
export function checked<S extends v.GenericSchema>(
  what: string,
  schema: S,
  value: unknown,
): v.InferOutput<S> {
  const result = v.safeParse(schema, value);
  if (result.success) {
    const field = arrayTakenForObject(value, result.output, '');
    if (field === null) return result.output;
    throw new Problem('E_SCHEMA', `${what}: ${field}: expected an object`, { field });
  }
  const issue = result.issues[0];
  const field = v.getDotPath(issue);
  throw new Problem('E_SCHEMA', `${what}${field === null ? '' : `: ${field}`}: ${issue.message}`, {
    field: field ?? '',
  });
}

/** The first field that came as an array and was read as an object: one whose fields are all optional takes an array for empty. */
function arrayTakenForObject(came: unknown, read: unknown, path: string): string | null {
  if (typeof came !== 'object' || came === null || typeof read !== 'object' || read === null) {
    return null;
  }
  if (Array.isArray(came) && !Array.isArray(read)) return path;
  const readFields = new Map<string, unknown>(Object.entries(read));
  for (const [name, value] of Object.entries(came)) {
    const below = path === '' ? name : `${path}.${name}`;
    const field = arrayTakenForObject(value, readFields.get(name), below);
    if (field !== null) return field;
  }
  return null;
}

/** A JSON body of a schema. @throws E_USAGE (content type), E_PARSE, E_SCHEMA, E_TOOBIG */
export function jsonBody<S extends v.GenericSchema>(
  request: Request,
  bytes: Uint8Array,
  schema: S,
  maxBytes: number,
): v.InferOutput<S> {
  const type = request.headers.get('content-type')?.split(';')[0]?.trim().toLowerCase();
  if (type !== 'application/json')
    throw new Problem('E_USAGE', `content type ${type ?? 'is missing'}, expected application/json`);
  const json = parseStrictJson(bytes, { maxBytes, numbers: 'shortest' });
  if (typeof json !== 'object' || json === null || Array.isArray(json))
    throw new Problem('E_SCHEMA', 'body: expected an object', { field: '' });
  return checked('body', schema, json);
}
