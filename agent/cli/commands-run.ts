/** Commands that start the agent or speak of it: run, version, config. */
import { fieldsOf, showRows } from '../config/show.ts';
import type { CliCommand } from './command.ts';

export const runCommands: readonly CliCommand[] = [
  {
    name: 'run',
    summary: 'Run the agent in the foreground; the service unit calls this.',
    usage: '',
    minArguments: 0,
    maxArguments: 0,
    options: {
      once: { type: 'boolean', doc: 'One check and what follows from it, then end.' },
    },
    examples: ['switchback-agent run', 'switchback-agent run --once --config ./agent.toml'],
    notes: 'Logs JSON lines to stdout. SIGTERM is safe at any moment.',
    run: ({ parts, load, options }) => parts.runDaemon(load(), { once: options['once'] === true }),
  },
  {
    name: 'config check',
    json: '{ok, files: [path]}',
    summary: 'Check the settings; says which file and key is wrong.',
    usage: '',
    minArguments: 0,
    maxArguments: 0,
    options: {},
    examples: [
      'switchback-agent config check',
      'switchback-agent config check --config ./new.toml',
    ],
    run(invocation) {
      const { files } = invocation.load();
      invocation.print({ ok: true, files }, () =>
        files.length === 0 ? 'no files, all defaults\n' : `fine: ${files.join(', ')}\n`,
      );
      return Promise.resolve(0);
    },
  },
  {
    name: 'config show',
    json: '[{key, value, file}]; file is null for a default',
    summary: 'Show the settings in force.',
    usage: '',
    minArguments: 0,
    maxArguments: 0,
    options: { origin: { type: 'boolean', doc: 'With the file that each value comes from.' } },
    examples: ['switchback-agent config show --origin', 'switchback-agent config show --json'],
    run(invocation) {
      const loaded = invocation.load();
      invocation.print(fieldsOf(loaded), () =>
        showRows(loaded, invocation.options['origin'] === true),
      );
      return Promise.resolve(0);
    },
  },
  {
    name: 'version',
    json: '{version, node}',
    summary: 'Print the version of the agent.',
    usage: '',
    minArguments: 0,
    maxArguments: 0,
    options: {},
    examples: ['switchback-agent version --json'],
    run(invocation) {
      const { version } = invocation.parts;
      invocation.print({ version, node: process.version }, () => `switchback-agent ${version}\n`);
      return Promise.resolve(0);
    },
  },
];
