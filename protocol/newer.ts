/** Answers of a control that is newer than this program: fields that are not known here are left out, all else is held to the schema. */
import * as v from 'valibot';

/** Fields in one place that are not known; more than a release adds. */
const MAX_ROUNDS = 64;

type Key = string | number;

/** As v.safeParse, but strict objects may hold more than their schema says. `value` is JSON and is changed. */
export function safeParseNewer<S extends v.GenericSchema>(
  schema: S,
  value: unknown,
): v.SafeParseResult<S> {
  for (let round = 0; ; round += 1) {
    const parsed = v.safeParse(schema, value);
    if (parsed.success || round === MAX_ROUNDS) return parsed;
    // Each strict object names one of its unknown fields.
    const unknown = parsed.issues.flatMap((issue) => unknownFields(issue, []));
    if (unknown.length === 0) return parsed;
    for (const path of unknown) remove(value, path);
  }
}

/** Paths of fields that are not known; those in the options of a union too. */
function unknownFields(issue: v.BaseIssue<unknown>, above: readonly Key[]): (readonly Key[])[] {
  const path = [...above, ...(issue.path ?? []).map((item) => item.key as Key)];
  if (issue.type === 'strict_object' && issue.expected === 'never') return [path];
  return (issue.issues ?? []).flatMap((inner) => unknownFields(inner, path));
}

function remove(value: unknown, path: readonly Key[]): void {
  const last = path.at(-1);
  let at = value;
  for (const key of path.slice(0, -1)) at = (at as Record<Key, unknown> | undefined)?.[key];
  if (last !== undefined && typeof at === 'object' && at !== null) Reflect.deleteProperty(at, last);
}
