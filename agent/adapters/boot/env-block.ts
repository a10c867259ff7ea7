/**
 * GRUB's environment block: a line of signature, lines `name=value`, filled up with `#`. Only reading and making one; who may write
 * it where is said in docs/specs/partitions.md.
 */
import { must } from '#/protocol/errors.ts';

export const ENV_BLOCK_BYTES = 1024;
const SIGNATURE = '# GRUB Environment Block\n';

/**
 * The variables of a block as GRUB's own parser finds them; null when the signature is not there. A later line wins over an
 * earlier one of the same name; `\` keeps the next byte as it is; a last line without its end does not count.
 */
export function parseEnvBlock(bytes: Uint8Array): ReadonlyMap<string, string> | null {
  const text = Buffer.from(bytes).toString('latin1');
  if (!text.startsWith(SIGNATURE)) return null;
  const found = new Map<string, string>();
  let at = SIGNATURE.length;
  while (at < text.length) {
    const end = endOfLine(text, at);
    if (text[at] !== '#') {
      const equals = text.indexOf('=', at);
      if (equals === -1) break;
      // The name may run over the end of a line that has no `=`: GRUB looks for it alone.
      const valueEnd = endOfLine(text, equals + 1);
      if (valueEnd >= text.length) break;
      found.set(text.slice(at, equals), unescaped(text.slice(equals + 1, valueEnd)));
      at = valueEnd + 1;
      continue;
    }
    at = end + 1;
  }
  return found;
}

/** A block of these lines. `last` stands at its very end, after the filling. Values need no escaping. */
export function makeEnvBlock(
  lines: readonly (readonly [string, string])[],
  last?: readonly [string, string],
): Uint8Array {
  const text = SIGNATURE + lines.map(line).join('');
  const tail = last === undefined ? '' : `\n${line(last)}`;
  const fill = ENV_BLOCK_BYTES - text.length - tail.length;
  must(fill >= 0, `an environment block of ${text.length + tail.length} bytes`);
  return Buffer.from(text + '#'.repeat(fill) + tail, 'latin1');
}

function line([name, value]: readonly [string, string]): string {
  must(/^[\x20-\x5b\x5d-\x7e]*$/.test(value), `a value that needs no escaping: ${name}`);
  return `${name}=${value}\n`;
}

function endOfLine(text: string, from: number): number {
  let at = from;
  while (at < text.length && text[at] !== '\n') at += text[at] === '\\' ? 2 : 1;
  return Math.min(at, text.length);
}

function unescaped(value: string): string {
  return value.replaceAll(/\\([^])/g, '$1');
}
