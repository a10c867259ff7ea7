/**
 * The disk below the slots, told apart from another one (F65): the same random id stands in the slot root and in the state
 * directory. A root without it, or with another, is not the one that this host was set up on: nothing is written to it.
 * Format: docs/specs/slot-layout.md, section 6.
 */
import * as v from 'valibot';
import type { FilePort } from '#/agent/ports.ts';
import { isProblem, Problem } from '#/protocol/errors.ts';
import { makeDirectory } from './durable.ts';
import { stateFile, type StateFormat } from './state-file.ts';

/** Name of the file in the slot root; never the name of a slot or link. */
export const ROOT_FILE = '.slots.json';
/** Name of the file in the state directory. */
export const ROOT_SEEN_FILE = 'slots-root.json';

const format: StateFormat<{ readonly id: string }> = {
  kind: 'slots-root',
  version: 1,
  limitBytes: 4096,
  schema: v.object({ id: v.pipe(v.string(), v.regex(/^[0-9a-f]{32}$/)) }),
};

/**
 * Throws E_DISK unless `root` is the one that the state directory knows. Without knowledge (a new host, or one that lost its
 * state) the root is taken as it is; one that was never used gets an id from `newId`, 32 hex digits. Durable on return.
 */
export async function requireSameRoot(
  files: FilePort,
  root: string,
  stateDirectory: string,
  newId: () => string,
): Promise<void> {
  const inRoot = stateFile(files, `${root}/${ROOT_FILE}`, format);
  const inState = stateFile(files, `${stateDirectory}/${ROOT_SEEN_FILE}`, format);
  const known = await readable(() => inState.read());
  const found = await readable(() => inRoot.read());
  if (known !== null && found?.id === known.id) return;
  if (known !== null) {
    const what = found === null ? 'has no readable id' : `is ${found.id}`;
    throw new Problem('E_DISK', `${root} ${what}, this host writes to ${known.id}`, {
      root,
      known: known.id,
      found: found?.id ?? null,
    });
  }
  const id = found?.id ?? newId();
  // The root first: a cut in between leaves a root that is taken as it is.
  if (found === null) await inRoot.write({ id });
  await makeDirectory(files, stateDirectory);
  await inState.write({ id });
}

/** A damaged id is no id: what cannot be read proves nothing. */
async function readable<T>(read: () => Promise<T | null>): Promise<T | null> {
  try {
    return await read();
  } catch (error) {
    if (isProblem(error, 'E_STATE')) return null;
    throw error;
  }
}
