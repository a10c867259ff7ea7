/**
 * Completion scripts, generated from the command tree. They are static: no program is started while somebody types.
 * test/integration/cli-completion.test.ts runs them in the shells that are installed.
 */
import type { Command, Option } from 'commander';

export const shells = ['bash', 'zsh', 'fish'] as const;
export type Shell = (typeof shells)[number];

interface Flag {
  readonly names: readonly string[];
  readonly description: string;
  readonly takesValue: boolean;
  readonly choices: readonly string[];
}

/** One node of the tree, as the scripts need it. `path` is the words after the program's name. */
interface Node {
  readonly path: readonly string[];
  readonly description: string;
  readonly children: readonly { readonly name: string; readonly description: string }[];
  readonly flags: readonly Flag[];
  /** Accepted words of the first argument, where it is a choice. */
  readonly choices: readonly string[];
  readonly takesFile: boolean;
}

/** The script for `shell` that completes commands, options and fixed choices of `program`. */
export function completionScript(program: Command, shell: Shell): string {
  const nodes = walk(program, []);
  switch (shell) {
    case 'bash':
      return bashScript(program.name(), nodes);
    case 'zsh':
      return zshScript(program.name(), nodes);
    case 'fish':
      return fishScript(program.name(), nodes);
  }
}

function walk(command: Command, path: readonly string[]): readonly Node[] {
  const inherited: Option[] = [];
  for (let above: Command | null = command; above !== null; above = above.parent) {
    inherited.push(...above.options);
  }
  const first = command.registeredArguments[0];
  const here: Node = {
    path,
    description: command.description(),
    children: command.commands.map((child) => ({
      name: child.name(),
      description: child.description(),
    })),
    flags: [...inherited.map(flagOf), helpFlag],
    choices: first?.argChoices ?? [],
    takesFile: command.registeredArguments.some((argument) =>
      /file|dir|bundle|path/i.test(argument.name()),
    ),
  };
  return [here, ...command.commands.flatMap((child) => walk(child, [...path, child.name()]))];
}

const helpFlag: Flag = {
  names: ['-h', '--help'],
  description: 'show help',
  takesValue: false,
  choices: [],
};

function flagOf(option: Option): Flag {
  return {
    names: [option.short, option.long].filter((name) => name !== undefined && name !== null),
    description: option.description,
    takesValue: option.required || option.optional,
    choices: option.argChoices ?? [],
  };
}

const words = (node: Node): string => node.children.map((child) => child.name).join(' ');
const flagNames = (node: Node): string => node.flags.flatMap((flag) => flag.names).join(' ');
const keyOf = (node: Node): string => node.path.join(' ');

function bashScript(name: string, nodes: readonly Node[]): string {
  const valued = new Map<string, readonly string[]>();
  for (const flag of nodes.flatMap((node) => node.flags)) {
    if (flag.takesValue) for (const long of flag.names) valued.set(long, flag.choices);
  }
  const cases = nodes
    .map((node) => {
      const offered = [words(node), node.choices.join(' ')].filter((text) => text !== '').join(' ');
      return `    '${keyOf(node)}') words='${offered}'; flags='${flagNames(node)}'; files=${node.takesFile ? 1 : 0} ;;`;
    })
    .join('\n');
  const paths = nodes.map((node) => `'${keyOf(node)}'`).join('|');
  const choices = [...valued]
    .filter(([, list]) => list.length > 0)
    .map(
      ([flag, list]) =>
        `    ${flag}) COMPREPLY=($(compgen -W '${list.join(' ')}' -- "$cur")); return ;;`,
    )
    .join('\n');
  return `# bash completion for ${name}; load it with: source <(${name} completion bash)
_${name}() {
  local cur=\${COMP_WORDS[COMP_CWORD]} prev=\${COMP_WORDS[COMP_CWORD-1]} path='' words flags files word next i
  case $prev in
${choices}
    ${[...valued.keys()].join('|')}) COMPREPLY=($(compgen -f -- "$cur")); return ;;
  esac
  for ((i = 1; i < COMP_CWORD; i++)); do
    word=\${COMP_WORDS[i]}
    [[ $word == -* ]] && continue
    next=\${path:+$path }$word
    case $next in ${paths}) path=$next ;; esac
  done
  case $path in
${cases}
  esac
  if [[ $cur == -* ]]; then COMPREPLY=($(compgen -W "$flags" -- "$cur"))
  else
    COMPREPLY=($(compgen -W "$words" -- "$cur"))
    ((files)) && COMPREPLY+=($(compgen -f -- "$cur"))
  fi
  return 0
}
complete -o filenames -F _${name} ${name}
`;
}

/** Text inside single quotes of a shell. */
const quoted = (text: string): string => `'${text.replaceAll("'", `'\\''`)}'`;
const zshText = (text: string): string => text.replace(/[[\]:\\]/g, (char) => `\\${char}`);

function zshScript(name: string, nodes: readonly Node[]): string {
  const cases = nodes
    .map((node) => {
      const described = node.children.map((child) =>
        quoted(`${child.name}:${zshText(child.description)}`),
      );
      const choices = node.choices.map((choice) => quoted(choice));
      const flags = node.flags.flatMap((flag) =>
        flag.names.map((flagName) => quoted(`${flagName}:${zshText(flag.description)}`)),
      );
      return `    ${quoted(keyOf(node))})
      words_here=(${[...described, ...choices].join(' ')})
      flags_here=(${flags.join(' ')})
      files_here=${node.takesFile ? 1 : 0} ;;`;
    })
    .join('\n');
  const fixed = new Map(
    nodes.flatMap((node) =>
      node.flags
        .filter((flag) => flag.choices.length > 0)
        .flatMap((flag) => flag.names.map((text) => [text, flag.choices] as const)),
    ),
  );
  const fixedCases = [...fixed]
    .map(
      ([flag, list]) =>
        `    ${flag}) words_here=(${list.join(' ')}); _describe value words_here; return ;;`,
    )
    .join('\n');
  const valued = new Set(
    nodes.flatMap((node) =>
      node.flags.filter((flag) => flag.takesValue).flatMap((flag) => flag.names),
    ),
  );
  const paths = nodes.map((node) => quoted(keyOf(node))).join('|');
  return `#compdef ${name}
# zsh completion for ${name}
_${name}() {
  local at word next cmd='' files_here=0
  local -a words_here flags_here
  case \${words[CURRENT-1]} in
${fixedCases}
    ${[...valued].join('|')}) _files; return ;;
  esac
  for ((at = 2; at < CURRENT; at++)); do
    word=\${words[at]}
    [[ $word == -* ]] && continue
    next=\${cmd:+$cmd }$word
    case $next in ${paths}) cmd=$next ;; esac
  done
  case $cmd in
${cases}
  esac
  if [[ \${words[CURRENT]} == -* ]]; then _describe option flags_here
  else
    (( \${#words_here} )) && _describe command words_here
    (( files_here )) && _files
  fi
  return 0
}
if [[ \${funcstack[1]-} == _${name} ]]; then _${name} "$@"; else compdef _${name} ${name}; fi
`;
}

function fishScript(name: string, nodes: readonly Node[]): string {
  const lines = nodes.flatMap((node) => {
    const when = `-n ${quoted(`__${name}_at ${node.path.join(' ')}`.trim())}`;
    const children = node.children.map(
      (child) => `complete -c ${name} ${when} -f -a ${child.name} -d ${quoted(child.description)}`,
    );
    const choices = node.choices.map((choice) => `complete -c ${name} ${when} -f -a ${choice}`);
    const files = node.takesFile ? [`complete -c ${name} ${when} -F`] : [];
    const flags = node.flags.map((flag) => {
      const parts = flag.names.map((text) =>
        text.startsWith('--') ? `-l ${text.slice(2)}` : `-s ${text.slice(1)}`,
      );
      const value = flag.takesValue ? ' -r' : '';
      const fixed = flag.choices.length > 0 ? ` -f -a ${quoted(flag.choices.join(' '))}` : '';
      return `complete -c ${name} ${when} ${parts.join(' ')}${value}${fixed} -d ${quoted(flag.description)}`;
    });
    return [...children, ...choices, ...files, ...flags];
  });
  const paths = nodes.filter((node) => node.path.length > 0).map((node) => quoted(keyOf(node)));
  return `# fish completion for ${name}
function __${name}_at
    set -l known ${paths.join(' ')}
    set -l path
    set -l line (commandline -opc)
    for word in $line[2..]
        string match -q -- '-*' $word; and continue
        set -l next (string join ' ' $path $word)
        contains -- $next $known; and set path $path $word
    end
    test "$path" = "$argv"
end
complete -c ${name} -f
${lines.join('\n')}
`;
}
