/** docs/reference/api.md, from the routes. */
import {
  type Plane,
  type RouteName,
  rolePermissions,
  type Route,
  routeOf,
  routes,
} from '#/protocol/api.ts';
import { schemaWords } from './schema-words.ts';

const planes: readonly (readonly [Plane, string])[] = [
  ['operator', 'For operators and their programs. `Authorization: Bearer <token>`.'],
  ['agent', 'For hosts. See [the protocol](../specs/protocol.md).'],
  ['public', 'For anyone.'],
];

/** The page: every route with its permission, shapes and errors. */
export function apiPage(hasProtocolSpec: boolean): string {
  const names = Object.keys(routes) as RouteName[];
  const roleRows = Object.entries(rolePermissions).map(
    ([role, may]) => `| ${role} | ${may.join(', ')} |`,
  );
  const parts = [
    '# The HTTP API\n',
    intro,
    `| role | permissions |\n| --- | --- |\n${roleRows.join('\n')}\n`,
  ];
  for (const [plane, about] of planes) {
    const words = hasProtocolSpec ? about : about.replace(/ See \[.*$/, '');
    parts.push(`## ${plane}\n\n${words}\n`);
    for (const name of names.filter((one) => routeOf(one).plane === plane))
      parts.push(section(name, routeOf(name)));
  }
  return parts.join('\n');
}

function section(name: string, route: Route): string {
  const lines = [
    `### ${route.method} ${route.path.replaceAll(/:([a-z]+)/gi, '{$1}')}\n`,
    `${route.summary}\n`,
  ];
  lines.push(
    `Name \`${name}\`, permission \`${route.permission}\`, success ${route.status ?? 200}.\n`,
  );
  if (route.query !== undefined) lines.push(block('Query', schemaWords(route.query, 'input')));
  if (route.body !== undefined) {
    lines.push(
      route.body === 'bytes' ? 'Body: bytes.\n' : block('Body', schemaWords(route.body, 'input')),
    );
  }
  if (typeof route.ok === 'string') lines.push(`Answer: ${route.ok}.\n`);
  else if (route.ok !== null) lines.push(block('Answer', schemaWords(route.ok, 'output')));
  if (route.errors.length > 0) {
    const links = [...new Set(route.errors)].map(
      (code) => `[${code}](errors.md#${code.toLowerCase()})`,
    );
    lines.push(`Errors: ${links.join(', ')}.\n`);
  }
  return lines.join('\n');
}

const block = (title: string, text: string): string => `${title}:\n\n\`\`\`\n${text}\n\`\`\`\n`;

const intro = `Generated from the routes in \`protocol/api.ts\`; do not edit.

A failed call answers \`{code, message, details, requestId}\` with the status of [its code](errors.md). Times are milliseconds since
1970, UTC. Lists come in pages: \`{items, nextCursor}\`; give \`nextCursor\` back as \`cursor\` for the next page.
`;
