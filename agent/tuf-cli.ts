/**
 * `agent tuf`: the TUF client as a command with the interface of the public tuf-conformance suite, so that anyone can run that
 * suite against it. Exit 0 or 1. Metadata is kept under its plain names, byte for byte as it was published.
 *
 * The suite signs with ECDSA and RSA, leaves out digests and names roles freely; this command alone accepts that (unless
 * `--key-types ed25519`). The agent has the strict rules of bundle/trust/rules.ts. docs/specs/trust.md, section 12.
 */
import {
  createHash,
  createPublicKey,
  type KeyObject,
  verify as verifySignature,
} from 'node:crypto';
import { constants } from 'node:crypto';
import { parseArgs } from 'node:util';
import { makeDirectory, readFile, replaceFile } from '#/agent/adapters/durable.ts';
import { nodeFiles } from '#/agent/adapters/file-port.ts';
import { createTrustFetch } from '#/agent/adapters/trust-fetch.ts';
import type { FilePort } from '#/agent/ports.ts';
import { hexOf, type TufKey } from '#/bundle/keys.ts';
import { findTarget, refresh, type Session, targetFileName } from '#/bundle/trust/client.ts';
import { METADATA_MAX_BYTES } from '#/bundle/trust/metadata.ts';
import { type MetadataRules } from '#/bundle/trust/role.ts';
import { agentRules } from '#/bundle/trust/rules.ts';
import { requireDigests, trustRoot } from '#/bundle/trust/trusted-set.ts';
import { isProblem, Problem } from '#/protocol/errors.ts';

const TARGET_MAX_BYTES = 256 * 1024 * 1024;
/** Longer names of files are replaced by their digest. */
const FILE_NAME_MAX_CHARS = 200;

const usage = `usage: agent tuf --metadata-dir DIR [--metadata-url URL] COMMAND

  init ROOT    trust the root metadata in the file ROOT
  refresh      bring the metadata in DIR up to date
  download     --target-name PATH --target-base-url URL --target-dir DIR

  --key-types any|ed25519   which signatures count (any: also ecdsa and rsa)
`;

export interface TufCliWorld {
  readonly nowMs: () => number;
  readonly printError: (line: string) => void;
}

/** Runs one command. Returns the exit code: 0, or 1 for any failure. */
export async function runTufCli(args: readonly string[], world: TufCliWorld): Promise<number> {
  try {
    await runCommand(args, world);
    return 0;
  } catch (error) {
    if (!isProblem(error)) throw error;
    world.printError(`${error.code}: ${error.message}`);
    return 1;
  }
}

async function runCommand(args: readonly string[], world: TufCliWorld): Promise<void> {
  const { values, positionals } = parse(args);
  const files = nodeFiles();
  const directory = absolute(need(values['metadata-dir'], '--metadata-dir'));
  const keyTypes = values['key-types'] ?? 'any';
  if (keyTypes !== 'any' && keyTypes !== 'ed25519') {
    throw new Problem('E_USAGE', `--key-types ${keyTypes}: expected any or ed25519`);
  }
  const rules = keyTypes === 'any' ? conformanceRules : { ...conformanceRules, ...strictKeys };
  const [command, root] = positionals;
  if (command === 'init') {
    const bytes = await readFile(files, absolute(need(root, 'ROOT')), METADATA_MAX_BYTES.root);
    if (bytes === null) throw new Problem('E_USAGE', `there is no file ${root}`);
    trustRoot(bytes, rules);
    await makeDirectory(files, directory);
    await replaceFile(files, `${directory}/root.json`, bytes);
    return;
  }
  if (command !== 'refresh' && command !== 'download') throw new Problem('E_USAGE', usage);
  const download = command === 'download' ? readDownload(values) : null;
  const fetch = createTrustFetch({
    url: '',
    metadataUrl: need(values['metadata-url'], '--metadata-url'),
    targetsUrl: download?.baseUrl ?? '',
  });
  const session: Session = {
    fetch,
    store: {
      read: (name) => readFile(files, `${directory}/${name}`, METADATA_MAX_BYTES.targets),
      replace: (name, bytes) => replaceFile(files, `${directory}/${name}`, bytes),
    },
    names: { root: () => 'root.json', role: (role) => `${fileNameOf(role)}.json` },
    now: Math.floor(world.nowMs() / 1000),
    onEquivocation: (role) =>
      world.printError(`equivocation: ${role} was signed twice with one version`),
  };
  try {
    await fetchAll(files, rules, session, download);
  } finally {
    await fetch.close();
  }
}

interface Download {
  readonly name: string;
  readonly baseUrl: string;
  readonly directory: string;
}

type Values = ReturnType<typeof parse>['values'];

function parse(args: readonly string[]) {
  const text = { type: 'string' } as const;
  try {
    return parseArgs({
      args: [...args],
      allowPositionals: true,
      options: {
        'metadata-dir': text,
        'metadata-url': text,
        'target-name': text,
        'target-base-url': text,
        'target-dir': text,
        'key-types': text,
      },
    });
  } catch (cause) {
    throw new Problem('E_USAGE', usage, {}, { cause });
  }
}

function readDownload(values: Values): Download {
  return {
    name: need(values['target-name'], '--target-name'),
    baseUrl: need(values['target-base-url'], '--target-base-url'),
    directory: absolute(need(values['target-dir'], '--target-dir')),
  };
}

async function fetchAll(
  files: FilePort,
  rules: MetadataRules,
  session: Session,
  download: Download | null,
): Promise<void> {
  const root = await session.store.read('root.json');
  if (root === null) throw new Problem('E_USAGE', 'there is no root.json: run init first');
  const set = await refresh(trustRoot(root, rules), session);
  if (download === null) return;
  const found = await findTarget(set, download.name, session);
  const { target } = found;
  const path = `${download.directory}/${fileNameOf(target.path)}`;
  const held = await readFile(files, path, TARGET_MAX_BYTES);
  if (held !== null && isProblemFree(() => requireDigests(target.path, held, target))) return;
  if (target.length > TARGET_MAX_BYTES) {
    throw new Problem('E_TOOBIG', `${target.path} has ${target.length} bytes`);
  }
  const name = targetFileName(found.set, target);
  const bytes = await session.fetch.target(name, target.length);
  if (bytes === null) throw new Problem('E_HTTP', `the repository has no target ${name}`);
  requireDigests(target.path, bytes, target);
  await makeDirectory(files, download.directory);
  await replaceFile(files, path, bytes);
}

function isProblemFree(check: () => void): boolean {
  try {
    check();
    return true;
  } catch (error) {
    if (isProblem(error)) return false;
    throw error;
  }
}

/** One file name for any role or target path: nothing in it can leave the directory. */
function fileNameOf(name: string): string {
  const encoded = encodeURIComponent(name);
  if (encoded.length <= FILE_NAME_MAX_CHARS) return encoded;
  return createHash('sha256').update(name).digest('hex');
}

function need(value: string | undefined, what: string): string {
  if (value === undefined || value === '') throw new Problem('E_USAGE', `${what} is missing`);
  return value;
}

function absolute(path: string): string {
  const trimmed = path.length > 1 && path.endsWith('/') ? path.slice(0, -1) : path;
  return trimmed.startsWith('/') ? trimmed : `${process.cwd()}/${trimmed}`;
}

const strictKeys = {
  verifySignature: agentRules.verifySignature,
  keyMaterial: agentRules.keyMaterial,
};

const conformanceRules: MetadataRules = {
  strictForms: false,
  isRoleName: (name) => name.length > 0 && name.length <= 256,
  keyMaterial: (key) =>
    agentRules.keyMaterial(key) ??
    openKey(key)?.export({ type: 'spki', format: 'der' }).toString('base64') ??
    null,
  verifySignature: (key, message, signature) => {
    if (key.keytype === 'ed25519') return agentRules.verifySignature(key, message, signature);
    const opened = openKey(key);
    if (opened === null || !/^(?:[0-9a-f]{2})+$/.test(signature)) return false;
    return verifyOther(key.scheme, opened, message, Buffer.from(signature, 'hex'));
  },
};

function verifyOther(
  scheme: string,
  key: KeyObject,
  message: Uint8Array,
  signature: Uint8Array,
): boolean {
  switch (scheme) {
    case 'ecdsa-sha2-nistp256':
      return isCurve(key, 'prime256v1') && verifySignature('sha256', message, key, signature);
    case 'ecdsa-sha2-nistp384':
      return isCurve(key, 'secp384r1') && verifySignature('sha384', message, key, signature);
    case 'rsassa-pss-sha256':
      return (
        key.asymmetricKeyType === 'rsa' &&
        verifySignature(
          'sha256',
          message,
          {
            key,
            padding: constants.RSA_PKCS1_PSS_PADDING,
            saltLength: constants.RSA_PSS_SALTLEN_AUTO,
          },
          signature,
        )
      );
    case 'rsa-pkcs1v15-sha256':
      return key.asymmetricKeyType === 'rsa' && verifySignature('sha256', message, key, signature);
    default:
      return false;
  }
}

function isCurve(key: KeyObject, curve: string): boolean {
  return key.asymmetricKeyDetails?.namedCurve === curve;
}

/** A key of another kind: PEM, or for ECDSA also the bare point in hex. */
function openKey(key: TufKey): KeyObject | null {
  const text = key.keyval.public;
  try {
    if (text.startsWith('-----BEGIN')) return createPublicKey(text);
    const point = Buffer.from(text, 'hex');
    if (key.scheme !== 'ecdsa-sha2-nistp256' || point.length !== 65 || hexOf(point) !== text) {
      return null;
    }
    const coordinate = (from: number): string =>
      point.subarray(from, from + 32).toString('base64url');
    return createPublicKey({
      key: { kty: 'EC', crv: 'P-256', x: coordinate(1), y: coordinate(33) },
      format: 'jwk',
    });
  } catch {
    // Not a key that OpenSSL knows: its signatures do not count.
    return null;
  }
}
