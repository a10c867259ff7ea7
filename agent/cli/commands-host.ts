/** Commands about the host itself: enrol, doctor. */
import { dirname } from 'node:path';
import { mkdirSync, readFileSync } from 'node:fs';
import { Problem } from '#/protocol/errors.ts';
import { parseInvitation, type Invitation } from '#/protocol/join-token.ts';
import { makeDirectory } from '#/agent/adapters/durable.ts';
import { enrol } from '#/agent/adapters/enrol.ts';
import { nodeFiles } from '#/agent/adapters/file-port.ts';
import { hostArch, hostFacts } from '#/agent/adapters/host-facts.ts';
import { identityStore, loadIdentity, machineDigest } from '#/agent/adapters/identity.ts';
import { systemRandom } from '#/agent/adapters/random.ts';
import { systemClock } from '#/agent/adapters/clock.ts';
import { createTransport } from '#/agent/adapters/transport.ts';
import { authoritiesOf } from '#/agent/adapters/control-link.ts';
import { restoreConfigs } from '#/agent/host-configs.ts';
import type { CliCommand, Invocation } from './command.ts';
import { examine, type Finding } from './doctor.ts';
import { fields } from './render.ts';

export const hostCommands: readonly CliCommand[] = [
  {
    name: 'enrol',
    json: '{host, group, class, keyId, controlUrls}',
    summary: 'Join this host to a fleet with a one-use join text.',
    usage: '[JOIN-TEXT]',
    minArguments: 0,
    maxArguments: 1,
    options: {
      file: {
        type: 'string',
        value: 'PATH',
        doc: 'Read the join text from here (`-`: stdin), not from the command line.',
      },
      url: { type: 'string', value: 'URL', doc: 'Instead of a join text: the address of control,' },
      token: { type: 'string', value: 'TOKEN', doc: 'its one-use token,' },
      root: { type: 'string', value: 'SHA256', doc: 'and the digest of the trust root.' },
      class: {
        type: 'string',
        value: 'CLASS',
        doc: 'Class of artifacts this host takes; default: `host.class`.',
      },
      replace: { type: 'boolean', doc: 'Discard the identity that is there.' },
    },
    examples: [
      'switchback-agent enrol sbj1.eyJ1IjpbImh0dHBzOi8v…',
      'switchback-agent enrol --file /run/credentials/join --class web',
      'switchback-agent enrol --url https://control:8443 --token sbj_… --root 9f2c…',
    ],
    notes:
      'Keys are made on this host and never leave it. Repeating the command after a lost answer is safe.',
    run: enrolHost,
  },
  {
    name: 'identity',
    json: '{host, group, class, keyId, sealKey}',
    summary: 'Show who this host is, and the key that secrets are sealed to.',
    usage: '',
    minArguments: 0,
    maxArguments: 0,
    options: {},
    examples: ['switchback-agent identity'],
    notes: 'Compare the key with what `switchback config seal` shows, before you accept it there.',
    run: showIdentity,
  },
  {
    name: 'secrets restore',
    json: '{restored}',
    summary: 'At boot: give the services the entries of their config sets again.',
    usage: '',
    minArguments: 0,
    maxArguments: 0,
    options: {},
    examples: ['switchback-agent secrets restore'],
    notes: 'Run by switchback-secrets.service, before any service starts; it needs no network.',
    async run(invocation) {
      const restored = await restoreConfigs(invocation.load().settings);
      invocation.print({ restored }, () => `${restored.length} config sets are in their place\n`);
      return 0;
    },
  },
  {
    name: 'doctor',
    json: '{ok, findings: [{subject, verdict, seen, act}]}',
    summary: 'Look at the real host: what works, what is missing, and what rescues it.',
    usage: '',
    minArguments: 0,
    maxArguments: 0,
    options: {},
    examples: [
      'switchback-agent doctor',
      'switchback-agent doctor --json | jq ".findings[] | select(.verdict != \\"ok\\")"',
    ],
    notes: 'Exit code 0: nothing is broken (warnings may be there); 1: something is.',
    async run(invocation) {
      const findings = await examine(invocation.load(), invocation.parts.version);
      const broken = findings.some((finding) => finding.verdict === 'broken');
      invocation.print({ ok: !broken, findings }, () => doctorText(findings));
      return broken ? 1 : 0;
    },
  },
];

async function showIdentity(invocation: Invocation): Promise<number> {
  const { settings } = invocation.load();
  const store = identityStore(nodeFiles(), settings.state.directory);
  const machine = machineDigest(settings.host.machineIdFile);
  const identity = await loadIdentity(store, machine, systemRandom());
  if (identity === null) throw new Problem('E_CONFIG', 'this host is not enrolled');
  const { host, group, class: hostClass, keyId, sealKey } = identity;
  invocation.print({ host, group, class: hostClass, keyId, sealKey }, () =>
    fields([
      ['host', host],
      ['group', group],
      ['class', hostClass],
      ['key id', keyId],
      ['seal key', sealKey],
    ]),
  );
  return 0;
}

async function enrolHost(invocation: Invocation): Promise<number> {
  const { settings } = invocation.load();
  const invitation = invitationOf(invocation);
  const { options, parts } = invocation;
  const hostClass = typeof options['class'] === 'string' ? options['class'] : settings.host.class;
  if (hostClass === undefined)
    throw new Problem(
      'E_USAGE',
      'which class of artifacts does this host take? Give --class or set host.class',
    );
  const arch = hostArch();
  if (arch === null) throw new Problem('E_CLASS', `no artifacts are made for ${process.arch}`);
  const files = nodeFiles();
  const clock = systemClock();
  // Its parents too, as `run` does.
  mkdirSync(dirname(settings.state.directory), { recursive: true, mode: 0o700 });
  await makeDirectory(files, settings.state.directory);
  const machine = machineDigest(settings.host.machineIdFile);
  const caPem = authoritiesOf(settings.control, invitation.caPem);
  const transport = createTransport({
    ...settings.control,
    caPem,
    userAgent: `switchback-agent/${parts.version}`,
  });
  try {
    const identity = await enrol({
      invitation: { ...invitation, caPem },
      store: identityStore(files, settings.state.directory),
      transport,
      random: systemRandom(),
      wallMs: clock.wallMs,
      machine,
      class: hostClass,
      arch,
      agentVersion: parts.version,
      facts: await hostFacts({ bootId: clock.bootId(), machine, slotsRoot: settings.slots.root }),
      replace: options['replace'] === true,
    });
    const { host, group, keyId, controlUrls } = identity;
    invocation.print({ host, group, class: identity.class, keyId, controlUrls }, () =>
      fields([
        ['host', host],
        ['group', group],
        ['class', identity.class],
        ['control', controlUrls.join(', ')],
      ]),
    );
    if (!invocation.isJson)
      invocation.terminal.error(
        'next: the agent that runs here takes it up; where none does: switchback-agent run\n',
      );
    return 0;
  } finally {
    await transport.close();
  }
}

/** The join text from the argument, a file or its three parts. */
function invitationOf(invocation: Invocation): Invitation {
  const { options } = invocation;
  const [text] = invocation.arguments;
  const { file, url, token, root } = options;
  if (text !== undefined) return parseInvitation(text);
  if (typeof file === 'string')
    return parseInvitation(readFileSync(file === '-' ? 0 : file, 'utf8'));
  if (typeof url === 'string' && typeof token === 'string' && typeof root === 'string')
    return { controlUrls: [url.replace(/\/+$/, '')], token, rootSha256: root, caPem: null };
  throw new Problem('E_USAGE', 'give a join text, --file, or --url with --token and --root');
}

function doctorText(findings: readonly Finding[]): string {
  const signs = { ok: 'ok    ', warning: 'warn  ', broken: 'BROKEN' } as const;
  return findings
    .map(({ verdict, subject, seen, act }) => {
      const fix = act === null ? '' : `        -> ${act}\n`;
      return `${signs[verdict]}  ${subject}: ${seen}\n${fix}`;
    })
    .join('');
}
