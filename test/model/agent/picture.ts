/**
 * Prints the picture of docs/specs/agent-machine.md: every move between states that the explorer saw, in hosts with both
 * kinds of slots and with up to two disturbances. `node test/model/agent/picture.ts --write` puts it into the page.
 */
import { readFileSync, writeFileSync } from 'node:fs';
import { pathToFileURL } from 'node:url';
import { explore } from './explore.ts';
import { type Kind, type Nature, realMachine } from './world.ts';

const PAGE = new URL('../../../docs/specs/agent-machine.md', import.meta.url);
const BEGIN = '<!-- picture: printed by test/model/agent/picture.ts -->\n';
const END = '<!-- end of picture -->\n';

/** Moves on the undisturbed way are drawn as lines, those that need a disturbance as dots. */
export function picture(): string {
  const moves = (disturbances: number): Set<string> => {
    const all = new Set<string>();
    const worlds: readonly (readonly [Kind, Nature])[] = [
      ['directory', 'good'],
      ['directory', 'unhealthy'],
      ['partition', 'good'],
      ['partition', 'dead-on-start'],
      ['partition', 'bad-environment'],
    ];
    for (const [kind, nature] of worlds) {
      const found = explore({ kind, nature, disturbances }, realMachine);
      for (const move of found.moves) all.add(move);
    }
    return all;
  };
  const usual = moves(0);
  const disturbed = [...moves(1)].filter((move) => !usual.has(move));
  const line = (arrow: string) => (move: string) => `  ${move.replace('>', ` ${arrow} `)}`;
  return [
    '```mermaid',
    'flowchart LR',
    ...[...usual].toSorted().map(line('-->')),
    ...disturbed.toSorted().map(line('-.->')),
    '```',
    '',
  ].join('\n');
}

/** The page with a fresh picture in it. */
export function withPicture(page: string): string {
  const begin = page.indexOf(BEGIN);
  const end = page.indexOf(END);
  if (begin < 0 || end < begin) throw new Error('the page has no place for the picture');
  return `${page.slice(0, begin + BEGIN.length)}${picture()}${page.slice(end)}`;
}

export function readPage(): string {
  return readFileSync(PAGE, 'utf8');
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? '').href) {
  if (process.argv.includes('--write')) writeFileSync(PAGE, withPicture(readPage()));
  else process.stdout.write(picture());
}
