/** Protections taken out of the text of a module while it is loaded (plant.ts); what stands in `from` is there exactly once. */
export interface TextMutant {
  readonly name: string;
  readonly file: string;
  readonly from: string;
  readonly to: string;
}

export const textMutants: readonly TextMutant[] = [
  {
    name: 'reads slot records without their checksum',
    file: 'agent/adapters/slot-records.ts',
    from: ' && sum === checksumOf(record)',
    to: ' && sum !== undefined',
  },
  {
    name: 'reads the journal without its checksum',
    file: 'agent/adapters/journal.ts',
    from: 'if (hex32(crc32(bytes.subarray(start + 9, to))) !== match[1]) return null;',
    to: '',
  },
  {
    name: 'reads state files without their checksum',
    file: 'agent/adapters/state-file.ts',
    from: "if (hex32(crc32(body)) !== crc) throw damaged('checksum differs');",
    to: '',
  },
  {
    name: 'takes a short write for a whole one',
    file: 'agent/adapters/durable.ts',
    from: 'while (done < bytes.byteLength) {',
    to: 'if (done < bytes.byteLength) {',
  },
];
