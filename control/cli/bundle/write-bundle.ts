/** Puts the members of a bundle together into one file, durably and atomically. */
import { open, rename } from 'node:fs/promises';
import { dirname } from 'node:path';
import {
  BLOCK_BYTES,
  memberHeader,
  type MemberName,
  padding,
  TRAILER_BYTES,
} from '#/bundle/container.ts';
import { writeAll } from '#/control/cli/bundle/chunk-writer.ts';
import { must } from '#/protocol/errors.ts';

const COPY_BYTES = 1024 * 1024;

export interface BundleParts {
  readonly created: number;
  readonly manifest: Uint8Array;
  readonly envelope: Uint8Array;
  readonly attestations: Uint8Array;
  /** The packed index. */
  readonly index: Uint8Array;
  /** A part of the content of chunks.data; fewer bytes than asked for is possible, none is not. */
  readonly readData: (offset: number, sizeBytes: number) => Promise<Uint8Array>;
  readonly dataBytes: number;
}

/** Writes `temporary` and renames it to `out`, both in one file system. Returns the size of the file. */
export async function writeBundle(
  parts: BundleParts,
  temporary: string,
  out: string,
  onBytes: (bytes: number) => void,
  signal: AbortSignal | undefined,
): Promise<number> {
  let at = 0;
  {
    await using file = await open(temporary, 'wx', 0o644);
    const put = async (bytes: Uint8Array): Promise<void> => {
      await writeAll(file, bytes, at);
      at += bytes.byteLength;
    };
    const member = async (name: MemberName, bytes: Uint8Array): Promise<void> => {
      await put(memberHeader(name, bytes.byteLength, parts.created));
      await put(bytes);
      await put(padding(bytes.byteLength));
    };
    await member('manifest.json', parts.manifest);
    await member('manifest.dsse.json', parts.envelope);
    await member('attestations.intoto.jsonl', parts.attestations);
    await member('chunks.index', parts.index);
    await put(memberHeader('chunks.data', parts.dataBytes, parts.created));
    await copy(parts, put, onBytes, signal);
    await put(padding(parts.dataBytes));
    await put(new Uint8Array(TRAILER_BYTES));
    must(at % BLOCK_BYTES === 0, 'a bundle has whole blocks');
    await file.sync();
  }
  await rename(temporary, out);
  await using directory = await open(dirname(out), 'r');
  await directory.sync();
  return at;
}

async function copy(
  parts: BundleParts,
  put: (bytes: Uint8Array) => Promise<void>,
  onBytes: (bytes: number) => void,
  signal: AbortSignal | undefined,
): Promise<void> {
  for (let done = 0; done < parts.dataBytes; ) {
    signal?.throwIfAborted();
    const bytes = await parts.readData(done, Math.min(COPY_BYTES, parts.dataBytes - done));
    must(bytes.byteLength > 0, 'the chunks are all there');
    await put(bytes);
    onBytes(bytes.byteLength);
    done += bytes.byteLength;
  }
}
