/** What each command says of itself beyond its options: examples, and the shape of its JSON. Kept as data for the docs. */
import { Command } from 'commander';

/** A command whose examples and JSON shape can be read back: by --help, by docs/reference/cli.md and by tests. */
export class DescribedCommand extends Command {
  examples: readonly string[] = [];
  jsonShape = '';

  override createCommand(name?: string): DescribedCommand {
    return new DescribedCommand(name);
  }

  /** `examples`: command lines without the prompt. `jsonShape`: what --json prints, in one line. */
  explain(examples: readonly string[], jsonShape: string): this {
    this.examples = examples;
    this.jsonShape = jsonShape;
    const lines = examples.map((line) => `  $ ${line}\n`).join('');
    return this.addHelpText('after', `\nWith --json: ${jsonShape}\n\nExamples:\n${lines}`);
  }
}

/** Adds a family of commands (`group`, `host`): it does nothing itself but show its help. */
export function addFamily(
  program: DescribedCommand,
  name: string,
  description: string,
): DescribedCommand {
  return addCommand(program, name, description);
}

/** `parent.command()` with the type that `createCommand` really gives it. */
export function addCommand(
  parent: DescribedCommand,
  name: string,
  description: string,
): DescribedCommand {
  const command = parent.command(name);
  if (!(command instanceof DescribedCommand)) throw new Error('commander made a foreign command');
  return command.description(description);
}

/** Every command below `command` that does something, depth first, with its full name (`group create`). */
export function leavesOf(
  command: DescribedCommand,
  path: readonly string[] = [],
): readonly { readonly name: string; readonly command: DescribedCommand }[] {
  const below = command.commands.filter((child) => child instanceof DescribedCommand);
  if (below.length === 0) return [{ name: path.join(' '), command }];
  return below.flatMap((child) => leavesOf(child, [...path, child.name()]));
}
