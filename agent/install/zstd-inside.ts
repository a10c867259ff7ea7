/**
 * The inside of Node's zstd decompression stream that chunk-opener.ts and segment-opener.ts use, each behind a
 * test of its own; `reset` as of Node 22.15 to 26, dictionaries as of 24.6.
 */
export interface StreamInside {
  readonly _handle: {
    onerror: (message: string, errno: number, code: string) => void;
    reset(): void;
    writeSync(
      flush: number,
      input: Uint8Array,
      inputOffset: number,
      inputBytes: number,
      output: Uint8Array,
      outputOffset: number,
      outputBytes: number,
    ): void;
    close(): void;
  };
  /** Room left in the output, bytes left in the input. */
  readonly _writeState: Uint32Array;
}
