/** docs/reference/errors.md, from the one table of codes. */
import { type ErrorKind, errors } from '#/protocol/errors.ts';

const kinds: Readonly<Record<ErrorKind, string>> = {
  refused:
    'The input or the order is wrong. Trying again does not help. An agent never tries that version again on its own; a command exits with 20 or more.',
  unavailable:
    'Somebody else is not ready: network, lock, window. It is tried again with growing, jittered pauses; a command exits with 75.',
  exhausted:
    'There is no room. An agent frees its own cache once and then waits, visibly; a command exits with 28.',
  damaged:
    'Our own data or device is not what it was. It is fetched or rebuilt, and counted; a command exits with 74.',
};

/** The page, with the codes of each kind in the order of the table. */
export function errorsPage(): string {
  const parts = ['# Errors\n', intro];
  for (const kind of Object.keys(kinds) as ErrorKind[]) {
    parts.push(`## ${kind}\n\n${kinds[kind]}\n`);
    for (const [code, row] of Object.entries(errors)) {
      if (row.kind !== kind) continue;
      parts.push(
        `### ${code}\n\n${row.doc} **Next:** ${row.act}\n\nHTTP status ${row.http}, exit code ${row.exit}.\n`,
      );
    }
  }
  return parts.join('\n');
}

const intro = `Generated from \`protocol/errors.ts\`; do not edit.

Every expected failure has a code. The same code stands in what a command prints, in the body of an HTTP answer
(\`{code, message, details, requestId}\`), in the agent's reports and in its log. Codes are never renamed.

A failed command prints \`code: message\`, the chain of causes, and what to do next; with \`--json\` one line of JSON on standard
error: \`{code, message, details, causes, act, exit}\`. Exit code 1 is a bug in the program; please report it.
`;
