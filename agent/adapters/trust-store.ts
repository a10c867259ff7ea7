/** The trust store in a directory of its own: each file replaced as a whole, durably. docs/specs/trust.md, section 10. */
import type { FilePort } from '#/agent/ports.ts';
import type { TrustStore } from '#/bundle/trust/client.ts';
import { must } from '#/protocol/errors.ts';
import { readFile, replaceFile } from './durable.ts';

/** The largest file that is kept is a role or a snapshot; the memory of a host may be twice that. */
const FILE_MAX_BYTES = 2 * 1024 * 1024;

/** `directory` exists and belongs to the agent alone. */
export function createTrustStore(files: FilePort, directory: string): TrustStore {
  const pathOf = (name: string): string => {
    must(/^[A-Za-z0-9%][A-Za-z0-9%._-]{0,200}$/.test(name), `a plain file name: ${name}`);
    return `${directory}/${name}`;
  };
  return {
    read: (name) => readFile(files, pathOf(name), FILE_MAX_BYTES),
    replace: (name, bytes) => replaceFile(files, pathOf(name), bytes),
  };
}
