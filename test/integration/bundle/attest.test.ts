/** Statements in bundles, and rebuilds: what is added changes nothing else, and what is not the same is never signed. */
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { attestedOf } from '#/bundle/attested.ts';
import { PROVENANCE_TYPE } from '#/bundle/attestation.ts';
import { hexOf } from '#/bundle/keys.ts';
import type { AttestersDocument } from '#/bundle/trust/gates.ts';
import { attestBundle, rebuildAndCompare } from '#/control/cli/bundle/attest.ts';
import { checkDefinition } from '#/control/cli/bundle/definition.ts';
import { openBundle } from '#/control/cli/bundle/read.ts';
import { signBundle } from '#/control/cli/bundle/sign.ts';
import { verifyBundle } from '#/control/cli/bundle/verify.ts';
import {
  build,
  otherSigner,
  scratch,
  signer,
  trust,
  writeTree,
} from '#/test/support/bundle/build-sample.ts';
import { codeOfAsync } from '#/test/support/bundle/code-of.ts';

const TYPE = 'https://switchback.invalid/test-result/v1';
const definition = checkDefinition({
  name: 'sample',
  class: 'sample',
  version: '1.0',
  release: 1,
  compressionLevel: 3,
});
const policy: AttestersDocument = {
  schema: 'switchback.attesters/1',
  attesters: [
    {
      name: 'ci',
      keys: [hexOf(signer.key.bytes)],
      types: [PROVENANCE_TYPE],
      builders: ['https://ci.example/1'],
    },
    { name: 'tests', keys: [hexOf(otherSigner.key.bytes)], types: [TYPE], builders: [] },
  ],
};

describe('attest', () => {
  it('a statement joins the bundle and changes nothing that is signed or served', async () => {
    await using at = await scratch();
    const input = join(at.path, 'in');
    await writeTree(input, { 'bin/app': 'hello', 'etc/conf': 'x=1' });
    const out = join(at.path, 'a.bundle');
    const { artifactId } = await build(input, out, { builderId: 'https://ci.example/1' });
    const attestation = { predicateType: TYPE, predicate: { passed: 3, failed: 0 } };
    const result = await attestBundle(out, out, attestation, [otherSigner]);
    expect(result).toMatchObject({ artifactId, statements: 2 });
    // Once more: the same statement is there already.
    expect((await attestBundle(out, out, attestation, [otherSigner])).statements).toBe(2);
    const verified = await verifyBundle(out, trust);
    expect(verified.artifactId).toBe(artifactId);
    expect(verified.attestations).toEqual([PROVENANCE_TYPE, TYPE]);
    await using bundle = await openBundle(out, trust);
    const facts = attestedOf(bundle.attestations, artifactId, policy, []);
    expect(facts.map((fact) => fact.attester)).toEqual(['ci', 'tests']);
    expect(facts[1]?.predicate).toEqual({ passed: 3, failed: 0 });
  });

  it('C08 provenance that a foreign builder wrote with a trusted key is refused where it is believed', async () => {
    await using at = await scratch();
    const input = join(at.path, 'in');
    await writeTree(input, { file: 'x' });
    const out = join(at.path, 'a.bundle');
    const { artifactId } = await build(input, out, { builderId: 'https://elsewhere.example/9' });
    await using bundle = await openBundle(out, trust);
    expect(() => attestedOf(bundle.attestations, artifactId, policy, [])).toThrow(
      expect.objectContaining({ code: 'E_BUILDER' }),
    );
  });
});

describe('rebuild', () => {
  it('C17 the same input is the same artifact and a second builder may sign it; another byte is not', async () => {
    await using at = await scratch();
    const input = join(at.path, 'in');
    await writeTree(input, { 'bin/app': 'hello', 'etc/conf': 'x=1' });
    const out = join(at.path, 'a.bundle');
    const { artifactId } = await build(input, out);
    const options = { definition, input, signers: [otherSigner], workers: 1 };
    const rebuilt = await rebuildAndCompare(out, options);
    expect(rebuilt.artifactId).toBe(artifactId);
    const signed = await signBundle(out, out, [otherSigner], rebuilt.artifactId);
    expect(signed.keyIds).toEqual([signer.key.keyId, otherSigner.key.keyId]);
    const before = await readFile(out);
    await writeFile(join(input, 'etc/conf'), 'x=2');
    expect(await codeOfAsync(() => rebuildAndCompare(out, options))).toBe('E_ARTIFACT');
    await expect(rebuildAndCompare(out, options)).rejects.toThrow(/payload root differs/);
    const other = { ...options, definition: checkDefinition({ ...definition, release: 2 }) };
    await expect(rebuildAndCompare(out, other)).rejects.toThrow(/release differs/);
    expect(before.equals(await readFile(out))).toBe(true);
  });
});
