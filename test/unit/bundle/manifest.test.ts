import { describe, expect, it } from 'vitest';
import { agentNumber, checkCompatibility, type HostTraits } from '#/bundle/compatibility.ts';
import { artifactIdOf, encodeManifest, parseManifest } from '#/bundle/manifest.ts';
import { codeOf } from '#/test/support/bundle/code-of.ts';
import { imageIndex, sha256 } from '#/test/support/bundle/sample-index.ts';

const { manifest } = imageIndex([4096]);
const bytes = encodeManifest(manifest);
const text = Buffer.from(bytes).toString();
const parseText = (changed: string): string => codeOf(() => parseManifest(Buffer.from(changed)));

describe('manifest', () => {
  it('comes back as it was encoded, under the digest of its bytes', () => {
    expect(parseManifest(bytes)).toEqual(manifest);
    expect(artifactIdOf(bytes)).toBe(sha256(bytes));
  });

  it.each([
    ['a space', text.replace('{', '{ '), 'E_CANON'],
    ['a newline at the end', `${text}\n`, 'E_CANON'],
    [
      'keys in another order',
      `{"version":"1",${text.slice(1).replace(',"version":"1"', '')}`,
      'E_CANON',
    ],
    ['a duplicate key', text.replace('"release":1', '"release":1,"release":2'), 'E_PARSE'],
    ['a fraction', text.replace('"release":1', '"release":1.5'), 'E_CANON'],
    ['an exponent', text.replace('"release":1', '"release":1e3'), 'E_CANON'],
    ['a size of 2^53', text.replace('"dataBytes":4096', '"dataBytes":9007199254740992'), 'E_CANON'],
    ['an unknown key', text.replace('"release":1', '"release":1,"root":true'), 'E_SCHEMA'],
    ['another schema', text.replace('manifest/1', 'manifest/2'), 'E_SCHEMA'],
    ['release 0', text.replace('"release":1', '"release":0'), 'E_SCHEMA'],
    ['a class with a slash', text.replace('"class":"sample"', '"class":"a/b"'), 'E_SCHEMA'],
    ['no payload', text.replace(/"payloads":\[.*?\}\]/, '"payloads":[]'), 'E_SCHEMA'],
    [
      'more than a mebibyte',
      text.replace('"name":"sample"', `"name":"${'a'.repeat(1 << 20)}"`),
      'E_TOOBIG',
    ],
  ])('is refused with %s', (_, changed, code) => {
    expect(changed).not.toBe(text);
    expect(parseText(changed)).toBe(code);
  });

  it('C15 is refused with two payloads of one name', () => {
    const twice = { ...manifest, payloads: [...manifest.payloads, ...manifest.payloads] };
    expect(codeOf(() => encodeManifest(twice))).toBe('E_SCHEMA');
  });
});

describe('compatibility', () => {
  const host: HostTraits = { class: 'sample', arch: 'amd64', agent: 1_002_003, runningRelease: 5 };
  const check = (changes: object, traits: HostTraits = host): string =>
    codeOf(() => checkCompatibility({ ...manifest, ...changes }, traits));

  it('C18 refuses another class and another architecture', () => {
    expect(check({})).toBe('nothing');
    expect(check({ class: 'other' })).toBe('E_CLASS');
    expect(check({ arch: 'arm64' })).toBe('E_CLASS');
    expect(check({ arch: 'amd64' })).toBe('nothing');
  });

  it('refuses what needs a newer agent', () => {
    expect(check({ minAgent: 1_002_003 })).toBe('nothing');
    expect(check({ minAgent: 1_002_004 })).toBe('E_AGENT_TOO_OLD');
  });

  it('refuses a version that a stepping stone stands in front of, but not on an empty host', () => {
    expect(check({ minFrom: 5 })).toBe('nothing');
    expect(check({ minFrom: 6 })).toBe('E_STEPPING_STONE');
    expect(check({ minFrom: 6 }, { ...host, runningRelease: null })).toBe('nothing');
  });

  it('reads the number of an agent from its version', () => {
    expect(agentNumber('1.2.3')).toBe(1_002_003);
    expect(agentNumber('0.1.0-rc.1')).toBe(1000);
    expect(codeOf(() => agentNumber('1.2'))).toBe('E_USAGE');
    expect(codeOf(() => agentNumber('1.2.1000'))).toBe('E_USAGE');
  });
});
