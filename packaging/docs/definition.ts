/** `docs/reference/release-definition.md`: every key that `switchback bundle build --definition` takes, from the schemas themselves. */
import * as v from 'valibot';
import { activation, healthCheck, trialRules } from '#/bundle/manifest.ts';
import {
  checkDefaults,
  definitionSchema,
  payloadDefinition,
  trialDefaults,
} from '#/control/cli/bundle/definition.ts';
import type { Schema } from '#/protocol/api.ts';
import { schemaWords } from './schema-words.ts';

type Entries = Readonly<Record<string, Schema>>;

const topMeanings: Readonly<Record<string, string>> = {
  name: 'Name of what is released.',
  class: 'Class of hosts that take it: what `host.class` or the enrolment says.',
  arch: 'Processor that it needs.',
  version: 'What people call it.',
  release:
    'A number that grows with each release of the class. Floors and going back are decided by it, not by `version`.',
  minAgent: 'Oldest agent that can install it, as `"1.2.0"`.',
  minFrom: 'Lowest `release` from which a host may come to this one.',
  activation: 'How it is started, below.',
  health: 'What must hold after the switch, below.',
  trial: 'How it is judged, below.',
  compressionLevel: 'Of zstd. 15: small, slow; 6: a little larger, several times as fast.',
  config: 'Schema and version of the config set that it takes.',
  payloads: 'Where there is more than the one input, below.',
};
const activationMeanings: Readonly<Record<string, string>> = {
  none: 'Only the link `current` is moved.',
  units: 'These systemd units are restarted, in this order.',
  command:
    '`start` starts the version and ends; `stop` stops what runs. `{slot}` is the directory of the version.',
  process:
    'The agent runs this program and starts it again when it ends; more than three times in a trial fails it. ' +
    'What it writes goes to `log/service.log` in the state directory of the host, unless `activation.log_file` of the host says otherwise.',
  reboot: 'The host boots into it: images in partitions.',
};
const commonMeanings: Readonly<Record<string, string>> = {
  name: 'Its name. A check of the host with the same name (`[check.NAME]` in the settings of the agent) takes its place there.',
  required: 'When it fails, the trial does; others are only reported.',
  timeoutMs: 'One run of it.',
  intervalMs: 'Between two runs.',
  successesNeeded: 'In a row, until it has passed.',
  failuresAllowed: 'In a row, that are forgiven.',
  baseline: '`not-worse`: one that failed before the switch may fail after it.',
  startAfterMs: 'Not run before, after the switch.',
};
const kindMeanings: Readonly<Record<string, string>> = {
  http: 'GET of `url` answers with `status`, and with `bodyIncludes` in its body. Redirects are not followed.',
  tcp: 'The port takes a connection.',
  exec: 'The program ends with exit code 0. `{slot}` is the directory of the version.',
  unit: 'The systemd unit is active.',
  process: 'This program runs.',
  file: 'It exists, and was written at most `maxAgeMs` ago.',
  resource: 'So much is free, and the load of a minute is not higher (per core, in hundredths).',
};
const trialMeanings: Readonly<Record<string, string>> = {
  soakMs: 'How long all required checks must hold after they first passed.',
  deadlineMs: 'Hard limit of checks and soak together: then the host goes back.',
  maxBoots: 'Partitions: boots that it may use.',
  control: '`must-reach`: passed only once control was reached from the new version.',
  oneWay:
    'It changes data that the version before cannot read: it is never taken back by itself. Hosts take it only with `slots.accept_one_way`.',
};
const payloadMeanings: Readonly<Record<string, string>> = {
  name: 'Its name.',
  kind: 'A directory, or a disk image.',
  path: 'Relative to the definition file.',
  chunker: 'How it is cut; default: by kind.',
  keepOwners: 'Owners of files as they are; otherwise all belong to root.',
  verity: 'Images with a dm-verity tree: what `veritysetup format` printed and was given.',
  allowSetuid: 'Files may be setuid, setgid or sticky.',
  allowCaseCollisions: 'Paths may differ only in case.',
  allowAbsoluteLinks: 'Links may be absolute.',
};

/** The page. Throws when a key or a kind has no words here, or words have no key. */
export function definitionPage(): string {
  const [firstCheck] = healthCheck.options;
  const common = pick(firstCheck.entries, Object.keys(commonMeanings));
  return [
    '# The definition of a release',
    'Generated from `control/cli/bundle/definition.ts` and `bundle/manifest.ts`; do not edit.',
    'The file that `switchback bundle build DIRECTORY --definition FILE` reads: TOML, or JSON when its name ends in `.json`. ' +
      'An unknown key is refused and named. What is not said has the default; without one it is required.',
    '## Keys',
    table(definitionSchema.entries, topMeanings, {}),
    '## `[activation]`',
    kinds(activation.options, activationMeanings, ['kind']),
    '## `[[health]]`',
    'One table for each check. Hosts can have checks of their own beside them ([settings](config.md)).',
    table(common, commonMeanings, checkDefaults),
    kinds(healthCheck.options, kindMeanings, ['kind', ...Object.keys(commonMeanings)]),
    '## `[trial]`',
    table(trialRules.entries, trialMeanings, trialDefaults),
    '## `[[payloads]]`',
    table(payloadDefinition.entries, payloadMeanings, {}),
    '',
  ]
    .join('\n\n')
    .trimEnd()
    .concat('\n');
}

function table(
  entries: Entries,
  meanings: Readonly<Record<string, string>>,
  defaults: Readonly<Record<string, unknown>>,
): string {
  requireSame(Object.keys(entries), Object.keys(meanings));
  const rows = Object.entries(entries).map(([key, schema]) => {
    const isTable = ['activation', 'health', 'trial', 'payloads'].includes(key);
    const type = isTable ? 'below' : inCell(schemaWords(schema, 'input'));
    return `| \`${key}\` | ${type} | ${defaultOf(key, schema, defaults)} | ${meanings[key]} |`;
  });
  return ['| Key | Type | Default | Meaning |', '|---|---|---|---|', ...rows].join('\n');
}

function kinds(
  options: readonly { readonly entries: Entries }[],
  meanings: Readonly<Record<string, string>>,
  without: readonly string[],
): string {
  const named = options.map(({ entries }) => [literalOf(entries['kind']), entries] as const);
  requireSame(
    named.map(([kind]) => kind),
    Object.keys(meanings),
  );
  const rows = named.map(([kind, entries]) => {
    const own = Object.entries(entries).filter(([key]) => !without.includes(key));
    const keys = own.map(([key, schema]) => {
      const optional = schema.type === 'optional' ? ', optional' : '';
      return `\`${key}\`: ${inCell(schemaWords(schema, 'input'))}${optional}`;
    });
    return `| \`"${kind}"\` | ${keys.length === 0 ? 'none' : keys.join('<br>')} | ${meanings[kind]} |`;
  });
  return ['| `kind` | Its keys | Meaning |', '|---|---|---|', ...rows].join('\n');
}

function defaultOf(
  key: string,
  schema: Schema,
  defaults: Readonly<Record<string, unknown>>,
): string {
  const value = Object.hasOwn(defaults, key) ? defaults[key] : v.getDefault(schema);
  if (value !== undefined && (typeof value !== 'object' || key === 'activation'))
    return `\`${JSON.stringify(value)}\``;
  return schema.type === 'optional' || typeof value === 'object' || key === 'trial'
    ? ''
    : 'required';
}

function literalOf(schema: Schema | undefined): string {
  return schema !== undefined && 'literal' in schema ? String(schema.literal) : '';
}

function pick(entries: Entries, keys: readonly string[]): Entries {
  return Object.fromEntries(Object.entries(entries).filter(([key]) => keys.includes(key)));
}

const inCell = (text: string): string => text.replaceAll('|', '\\|').replaceAll(/\s*\n\s*/g, ' ');

function requireSame(keys: readonly string[], described: readonly string[]): void {
  const [one, other] = [keys, described].map((names) => names.toSorted().join(' '));
  if (one !== other) throw new Error(`the page of the definition describes ${other}, not ${one}`);
}
