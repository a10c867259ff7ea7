/** Documents that come as files or as targets of the repository: config sets, policy, whole bundles as an upload. */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { canonicalDocument } from '#/bundle/canonical.ts';
import {
  CONFIG_PAYLOAD_TYPE,
  decodeConfigEnvelope,
  encodeSealed,
  openConfigSet,
  openEntries,
  ownSecrets,
  readConfigSet,
  readSealed,
} from '#/bundle/config-set.ts';
import { encodeEnvelope, signEnvelope } from '#/bundle/dsse.ts';
import {
  buildersDocument,
  floorsDocument,
  logDocument,
  readDocument,
  revokedDocument,
} from '#/bundle/trust/documents.ts';
import { attestersDocument, gatesDocument } from '#/bundle/trust/gates.ts';
import { checkBundle } from '#/control/bundle-check.ts';
import { readConfigDefinition } from '#/control/cli/config-set/definition.ts';
import { desiredDocument } from '#/protocol/documents.ts';
import { HOST_SECRET, makeConfig } from '#/test/support/config-world.ts';
import { build, writeTree } from '#/test/support/bundle/build-sample.ts';
import { HOST, signerNumber, TrustWorld } from '#/test/support/trust-world.ts';
import type { GenericSchema } from 'valibot';
import type { FuzzTarget } from './run.ts';
import { samplesOf } from './sample.ts';

/** The targets of this file. Files are written to a directory of the system's, which is removed at the end of the process. */
export async function fileTargets(): Promise<readonly FuzzTarget[]> {
  const directory = mkdtempSync(join(tmpdir(), 'fuzz-'));
  process.once('exit', () => rmSync(directory, { recursive: true, force: true }));
  return [...configTargets(directory), ...policyTargets(), await bundleTarget(directory)];
}

function configTargets(directory: string): readonly FuzzTarget[] {
  const artifact = new TrustWorld().release(1);
  const { known, sealed } = makeConfig([artifact], 1);
  const key = signerNumber(7);
  const trust = { keys: [key.key], threshold: 1 };
  const definition = [
    ...['scope = "web"', 'version = 1', 'group = "web"'],
    `artifacts = ["${artifact.artifactId}"]`,
    'schema = { id = "web", version = 2 }',
    ...['[plain]', 'LEVEL = "info"', '[secrets]', 'DB = "password.txt"'],
  ].join('\n');
  const path = join(directory, 'definition.toml');
  return [
    { name: 'config-set', seeds: [known.bytes], parse: readConfigSet },
    {
      name: 'config-envelope',
      seeds: [encodeEnvelope(signEnvelope(CONFIG_PAYLOAD_TYPE, known.bytes, [key]))],
      parse: (bytes) => openConfigSet(decodeConfigEnvelope(bytes), trust),
    },
    {
      // As a host opens it: every box and key that is in there.
      name: 'sealed',
      seeds: [encodeSealed(sealed)],
      parse(bytes) {
        const own = ownSecrets(readSealed(bytes), known, HOST, artifact.artifactId);
        return openEntries(known, own, HOST, artifact.artifactId, [HOST_SECRET]);
      },
    },
    {
      name: 'config-definition',
      seeds: [Buffer.from(definition)],
      parse(bytes) {
        writeFileSync(path, bytes);
        return readConfigDefinition(path);
      },
    },
  ];
}

function policyTargets(): readonly FuzzTarget[] {
  const shaped = (name: string, schema: GenericSchema): FuzzTarget => ({
    name,
    seeds: samplesOf(schema).map((value) => canonicalDocument(value)),
    parse: (bytes) => readDocument(name, schema, bytes),
  });
  return [
    shaped('floors', floorsDocument),
    shaped('revoked', revokedDocument),
    shaped('builders', buildersDocument),
    shaped('log-document', logDocument),
    shaped('attesters', attestersDocument),
    shaped('gates', gatesDocument),
    shaped('desired', desiredDocument),
  ];
}

/** The upload of a bundle, as control takes it in: the container, the manifest, the index, every chunk and file. */
async function bundleTarget(directory: string): Promise<FuzzTarget> {
  const path = join(directory, 'seed.bundle');
  await writeTree(join(directory, 'tree'), { app: 'version 1\n'.repeat(100), 'etc/conf': 'x' });
  await build(join(directory, 'tree'), path, { workers: 1 });
  const fuzzed = join(directory, 'fuzzed.bundle');
  return {
    name: 'bundle-upload',
    seeds: [readFileSync(path)],
    parse(bytes) {
      writeFileSync(fuzzed, bytes);
      return checkBundle(fuzzed);
    },
  };
}
