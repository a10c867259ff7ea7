/** Protections of the verifier, each as a change of text that takes it out, with the fast tests that must notice. */

export interface TextMutant {
  /** The protection. */
  readonly name: string;
  readonly file: string;
  /** Stands exactly once in the file. */
  readonly from: string;
  readonly to: string;
  /** Test files, without `.test.ts`, below `test/`. */
  readonly tests: readonly string[];
  /** Titles that are tried first; all of the files when these notice nothing. */
  readonly titles: string | null;
}

const METADATA = ['attack/tuf-forms', 'attack/tuf-metadata', 'attack/tuf-roles'];
const OFFERS = ['attack/tuf-forms', 'attack/trust-offers'];

/** The titles of the tests that are about a protection, as the lists number them. */
const titles: Readonly<Record<string, string>> = {
  'the config set is the pinned one': 'G06',
  'a config set of this group': 'G05|another group',
  'a config set for this artifact': 'G02',
  'boxes are what was signed': 'G04|another box',
  'what is sealed is of this config set': 'G03',
  'config sets by exactly the role of their scope': 'as its owners made it',
  'a config set of the schema that the version takes': 'G06',
  'a version that takes a config set is not run without': 'G06',
  'a config set is signed by the keys of its scope': 'G05',
  'revoked keys of config sets': 'G05',
  'a host that cannot open its secrets does not begin': 'G01',
  'opened secrets are in memory': 'G08',
  'only the owner reads opened secrets': 'G08',
  'only the owner lists them': 'G08',
  'what is not needed any more is removed': 'G07',
  'the config set goes with its version': 'G07',
  'no key of small order': 'B05',
  'the context is in the nonce': 'opens with the right key',
  'signature threshold of metadata': 'A02',
  'one key under two ids counts once': 'A04',
  'a key signs once': 'A03',
  expiry: 'A11',
  'no older version': 'A06',
  'the next root is exactly one higher': 'A16',
  'a new root is signed by the old keys': 'A17',
  'a new root is signed by its own keys': 'A17',
  'a snapshot drops no role': 'A09',
  'a snapshot lowers no role': 'A08',
  'a timestamp lowers no snapshot': 'A07',
  'the version is the listed one': 'A14',
  'the length is the signed one': 'A14|A15',
  'the digest is the signed one': 'A14',
  'a delegated role is signed by its keys': 'A20|A02',
  'a snapshot is signed': 'A01',
  'a timestamp is signed': 'A01',
  'an expired root ends the refresh': 'A11|A32',
  'a bound on root rotations': 'A18',
  'a terminating delegation ends the search': 'A21',
  'a bound on the roles of one target': 'A21|A22',
  'only paths of the delegation': 'A22',
  'a star does not cross a slash': 'A23',
  'names of roles are narrow': 'A24|A25',
  'the type is the expected one': 'A30',
  'the format is of a version that we know': 'A29',
  'every entry has length and digest': 'A15',
  'sha256 is among the digests': 'C16',
  'versions are whole and positive': 'A13',
  'the snapshot names only roles': 'A25',
  'dates are real and exact': 'A12',
  'only Ed25519': 'A31',
  'exactly the role that may vouch': 'A22',
  'floors only rise': 'C19|X08',
  'a release below the floor': 'C19',
  'revoked artifacts': 'C20',
  'revocations are never forgotten': 'C20',
  'revoked keys of roles': 'revoked key|E03',
  'revoked keys of builders': 'C05',
  'a pin never goes back': 'E18|X02',
  'a pin of this group and host': 'E16',
  'only what the pin allows': 'C03',
  'listed as what was pinned': 'C03',
  'the manifest is the pinned artifact': 'C03|C06',
  'signed waves': 'X04',
  'a pin that expired': 'expired',
  'the architecture of the host': 'C18',
  'the log entry is of this pin': 'E19',
  'the log is the one of before': 'L04',
  'the entry is in the tree': 'L05|L06',
  'the checkpoint is signed': 'L03',
  'time never before the floor': 'H04',
  'the floor of time ends at what offline keys signed': 'H04',
  'a file below what was committed': 'C19',
  'signed time answers our question': 'D07',
  'a proposal has its signatures': 'E17',
  'a proposal publishes what it lists': 'files that no document',
  'a document under its own name': 'files that no document',
  'a signed pin grows': 'E18',
  'S below the order': 'B01',
  'canonical points': 'B03',
  'no points of small order': 'B02|B03',
  'threshold of an envelope': 'C05',
  'type of the payload': 'C04',
  'no signature twice': 'A03|C05',
  'the verdict of the gates': 'E2',
};

const of =
  (file: string, tests: readonly string[]) =>
  (name: string, from: string, to: string, more: readonly string[] = []): TextMutant => ({
    name,
    file,
    from,
    to,
    tests: [...tests, ...more],
    titles: titles[name] ?? null,
  });

const set = of('bundle/trust/trusted-set.ts', METADATA);
const metadata = of('bundle/trust/metadata.ts', METADATA);
const client = of('bundle/trust/client.ts', METADATA);
const delegation = of('bundle/trust/delegation.ts', METADATA);
const resolve = of('bundle/trust/resolve.ts', OFFERS);
const json = of('bundle/strict-json.ts', ['unit/bundle/strict-json']);
const ed25519 = of('bundle/ed25519.ts', ['attack/ed25519']);
const dsse = of('bundle/dsse.ts', [
  'attack/bundle/bundle-file',
  'attack/trust-offers',
  'attack/ed25519',
]);
const CONFIGS = ['attack/config-sets', 'unit/bundle/config-set'];
const config = of('bundle/config-set.ts', CONFIGS);
const configured = of('bundle/trust/configured.ts', CONFIGS);
const seal = of('bundle/seal.ts', ['unit/bundle/seal']);
const secrets = of('agent/adapters/secrets.ts', CONFIGS);
const recipients = of('control/cli/config-set/recipients.ts', ['unit/control/config-recipients']);
const log = ['attack/log'];

export const trustMutants: readonly TextMutant[] = [
  config(
    'the config set is the pinned one',
    'if (configId !== wanted.configId)',
    'if (configId === null)',
  ),
  config(
    'a config set of this group',
    'if (set.group !== wanted.group)',
    'if (set.group === null)',
  ),
  config(
    'a config set for this artifact',
    'if (!set.artifacts.includes(wanted.artifactId)) {',
    'if (set.artifacts.length === 0) {',
  ),
  config(
    'boxes are what was signed',
    'sha256(box) !== listed.sealedSha256',
    "listed.sealedSha256 === ''",
  ),
  config(
    'what is sealed is of this config set',
    'if (sealed.configId !== known.configId) {',
    'if (sealed.configId === null) {',
  ),
  configured(
    'config sets by exactly the role of their scope',
    'await findIn(set, path, role, session)',
    "await findIn(set, path, 'cfg-db', session)",
  ),
  config(
    'a config set of the schema that the version takes',
    'if (wanted.takes?.schema !== id || wanted.takes.version !== version) {',
    'if (wanted.takes === null) {',
  ),
  of('bundle/manifest.ts', CONFIGS)(
    'a version that takes a config set is not run without',
    'if (takes === undefined || isNamed) return;',
    'if (takes === undefined || artifact.length > 0) return;',
  ),
  configured(
    'a config set is signed by the keys of its scope',
    'threshold: delegation.role.threshold,',
    'threshold: 0,',
  ),
  configured(
    'revoked keys of config sets',
    'trusted.filter((key) => !revoked.includes(key.keyId))',
    'trusted',
  ),
  configured(
    'a host that cannot open its secrets does not begin',
    'openEntries(known, own, host, artifactId, sealSecrets);',
    '',
  ),
  secrets(
    'opened secrets are in memory',
    'type !== TMPFS && type !== RAMFS && !options.allowDisk',
    'type === 0',
  ),
  secrets(
    'only the owner reads opened secrets',
    "openSync(join(fresh, name), 'wx', 0o400)",
    "openSync(join(fresh, name), 'wx', 0o444)",
  ),
  secrets('only the owner lists them', 'mkdirSync(fresh, { mode: 0o700 })', 'mkdirSync(fresh)'),
  secrets(
    'what is not needed any more is removed',
    'if (!isOurs || name === kept) continue;',
    'if (isOurs || name === kept) continue;',
  ),
  of('agent/host-configs.ts', CONFIGS)(
    'the config set goes with its version',
    'await give(version);\n      await activator.activate(slot, version, manifest);',
    'await activator.activate(slot, version, manifest);',
  ),
  recipients(
    'the enrolment key is the one of before',
    'before !== null && before.enrolmentKey !== answer.enrolmentKey',
    'before !== null && before.enrolmentKey === null',
  ),
  recipients(
    'a statement of this host and group',
    'if (stated.host !== host || stated.group !== group) {',
    "if (stated.host === '') {",
  ),
  recipients(
    'no older statement of a host',
    'if (kept !== undefined && seq < kept.seq) {',
    'if (kept !== undefined && seq < 0) {',
  ),
  recipients(
    'nothing is sealed to a key that nobody compared',
    'if (kept?.sealKey !== sealKey && !isAccepted) {',
    "if (kept?.sealKey === '' && !isAccepted) {",
  ),
  recipients('nothing is sealed to a key of small order', 'requireSealKey(bytes);', ''),
  seal(
    'no key of small order',
    'if (product.every((byte) => byte === 0)) {',
    'if (product.length === 0) {',
  ),
  seal(
    'the context is in the nonce',
    '[SEAL_LABEL, ephemeral, host, context]',
    '[SEAL_LABEL, ephemeral, host]',
  ),
  set(
    'signature threshold of metadata',
    'if (signedBy.size < role.threshold) {',
    'if (signedBy.size < 0) {',
  ),
  set('one key under two ids counts once', 'signedBy.add(material);', 'signedBy.add(keyId);'),
  set('a key signs once', 'if (signatures.has(keyid)) {', 'if (signatures.has(`${keyid}?`)) {'),
  set('expiry', 'if (expires > now) return;', 'if (expires > 0) return;'),
  set('no older version', 'if (version >= seen) return;', 'if (version >= 0) return;'),
  set(
    'the next root is exactly one higher',
    'if (root.signed.version !== old.version + 1) {',
    'if (root.signed.version < 0) {',
  ),
  set(
    'a new root is signed by the old keys',
    "requireSignatures(root, 'root', old.roles.root, old.keys, rules);",
    '',
  ),
  set(
    'a new root is signed by its own keys',
    "    );\n  }\n  requireSignatures(root, 'root', root.signed.roles.root, root.signed.keys, rules);",
    '    );\n  }',
  ),
  set(
    'a snapshot drops no role',
    "if (entry === undefined) {\n      throw new Problem('E_ROLLBACK'",
    "if (entry === undefined) continue;\n    if (entry === null) {\n      throw new Problem('E_ROLLBACK'",
  ),
  set(
    'a snapshot lowers no role',
    'refuseRollback(`${name}, as listed in snapshot,`, entry.version, old.version);',
    '',
  ),
  set(
    'a timestamp lowers no snapshot',
    "      'snapshot, as listed in timestamp,',\n      timestamp.signed.snapshot.version,",
    "      'snapshot, as listed in timestamp,',\n      Infinity,",
  ),
  set(
    'the version is the listed one',
    'if (version === listed.version) return;',
    'if (version > 0) return;',
  ),
  set(
    'the length is the signed one',
    'if (listed.length !== null && listed.length !== bytes.length) {',
    'if (listed.length === -1) {',
  ),
  set('the digest is the signed one', 'if (digest !== signed) {', "if (digest === '') {"),
  set(
    'a delegated role is signed by its keys',
    'requireSignatures(role, name.role, delegation.role, keys, set.rules);',
    'void delegation; void keys;',
  ),
  set(
    'a snapshot is signed',
    "requireSignatures(snapshot, 'snapshot', roles.snapshot, keys, set.rules);",
    'void roles; void keys;',
  ),
  set(
    'a timestamp is signed',
    "requireSignatures(timestamp, 'timestamp', roles.timestamp, keys, set.rules);",
    'void roles; void keys;',
  ),
  client('an expired root ends the refresh', 'requireFreshRoot(rooted, session.now);', ''),
  client(
    'a bound on root rotations',
    'if (rotations >= ROOT_ROTATIONS_MAX) {',
    'if (rotations < 0) {',
  ),
  client(
    'a terminating delegation ends the search',
    'const end = covering.findIndex((entry) => entry.terminating);',
    'const end = -1;',
  ),
  client('a bound on the roles of one target', 'if (visited.size > ROLES_VISITED_MAX) break;', ''),
  client(
    'only paths of the delegation',
    'isDelegated(entry, path),',
    'isDelegated(entry, path) || path !== "",',
  ),
  delegation(
    'a star does not cross a slash',
    "  const patternParts = pattern.split('/');\n  const pathParts = path.split('/');",
    '  const patternParts = [pattern];\n  const pathParts = [path];',
  ),
  delegation('names of roles are narrow', '|| !rules.isRoleName(name)', ''),
  metadata(
    'the type is the expected one',
    "if (signed['_type'] !== type) return refuse('E_TYPE', '_type', type);",
    '',
  ),
  metadata(
    'the format is of a version that we know',
    "if (typeof spec !== 'string' || !/^1",
    "if (typeof spec !== 'string' || !/^[0-9]",
  ),
  metadata(
    'every entry has length and digest',
    'if (rules.strictForms && !isWhole)',
    'if (rules.strictForms && entry === null)',
  ),
  metadata('sha256 is among the digests', "(rules.strictForms && !hashes.has('sha256'))", 'false'),
  metadata(
    'versions are whole and positive',
    "version: integerAt(signed['version'], `${type}.version`, 1, 'E_VERSION'),",
    "version: signed['version'] as number,",
  ),
  metadata(
    'the snapshot names only roles',
    "if (role !== 'targets' && !rules.isRoleName(role)) {",
    "if (role === '') {",
  ),
  of('bundle/trust/shape.ts', [...METADATA, 'unit/bundle/trust-shape'])(
    'dates are real and exact',
    "if (!isReal) return refuse('E_EXPIRES', where, 'a date that exists');",
    '',
  ),
  of('bundle/trust/rules.ts', METADATA)(
    'only Ed25519',
    "if (key.keytype !== 'ed25519' || key.scheme !== 'ed25519') return null;",
    '',
  ),
  of('bundle/trust/find.ts', OFFERS)(
    'exactly the role that may vouch',
    'if (found.role !== role) {',
    'if (found.role === "") {',
    ['attack/tuf-forms', 'attack/tuf-roles'],
  ),
  json(
    'size before parsing',
    'if (bytes.length > limits.maxBytes) {',
    'if (bytes.length < 0) {',
    METADATA,
  ),
  json('no key twice', 'if (key in object) fail(', 'if (key === "\\u0000") fail('),
  json(
    'nothing after the value',
    'if (reader.at < reader.text.length) fail(',
    'if (reader.at < 0) fail(',
  ),
  json('valid UTF-8', '{ fatal: true, ignoreBOM: true }', '{ fatal: false, ignoreBOM: true }'),
  json(
    'no byte order mark',
    '{ fatal: true, ignoreBOM: true }',
    '{ fatal: true, ignoreBOM: false }',
  ),
  json('a bound on depth', 'if (depth > reader.maxDepth) fail(', 'if (depth < 0) fail('),
  ed25519('S below the order', 'isBelow(signature.subarray(32), ORDER)', 'signature.length > 0'),
  ed25519('canonical points', 'if (!isBelow(y, PRIME)) return false;', ''),
  ed25519(
    'no points of small order',
    'return !SMALL_ORDER_Y.some((small) => y.every((byte, index) => byte === small[index]));',
    'return SMALL_ORDER_Y.length > 0;',
  ),
  dsse(
    'threshold of an envelope',
    'if (signedBy.size < trust.threshold) {',
    'if (signedBy.size < 0) {',
  ),
  dsse(
    'type of the payload',
    'if (envelope.payloadType !== trust.payloadType) {',
    "if (envelope.payloadType === '') {",
  ),
  dsse('no signature twice', 'if (seen.has(keyid) || seen.has(sig)) {', "if (keyid === '') {"),
  resolve(
    'floors only rise',
    'raised[entry.class] = Math.max(raised[entry.class] ?? 0, entry.release);',
    'raised[entry.class] = entry.release;',
  ),
  resolve('a release below the floor', 'if (release < floor) {', 'if (release < 0) {'),
  resolve(
    'revoked artifacts',
    'if (memory.revokedArtifacts.includes(artifactId)) {',
    "if (artifactId === '') {",
  ),
  resolve(
    'revocations are never forgotten',
    'revokedArtifacts: union(memory.revokedArtifacts, revoked.artifacts),',
    'revokedArtifacts: revoked.artifacts,',
  ),
  resolve(
    'revoked keys of roles',
    'keyMaterial: (key) => (revoked.has(keyIdOf(key)) ? null : rules.keyMaterial(key)),',
    'keyMaterial: (key) => rules.keyMaterial(key),',
  ),
  resolve(
    'revoked keys of builders',
    'keys: trusted.keys.filter((key) => !memory.revokedKeyIds.includes(key.keyId)),',
    'keys: trusted.keys,',
  ),
  resolve('a pin never goes back', 'if (desired.seq < seen) {', 'if (desired.seq < 0) {'),
  resolve(
    'a pin of this group and host',
    'if (desired.group !== host.group || (own !== null && desired.host !== host.host)) {',
    "if (desired.group === '') {",
  ),
  resolve(
    'only what the pin allows',
    'const isOfPin = version === pinnedOf(desired);',
    'const isOfPin = version !== previousOf(desired);',
  ),
  // That the class is the host's is asked twice, of the pin and of the manifest: neither can be taken out alone.
  resolve(
    'listed as what was pinned',
    "if (!isPinned) {\n    throw new Problem('E_ARTIFACT'",
    "if (listed === null) {\n    throw new Problem('E_ARTIFACT'",
  ),
  resolve(
    'the manifest is the pinned artifact',
    'if (digest !== artifactId) {',
    "if (artifactId === '') {",
  ),
  resolve('signed waves', 'return now < opensAt ? `the wave', 'return now < 0 ? `the wave'),
  resolve(
    'a pin that expired',
    'if (desired.expiresAt !== undefined && now >= desired.expiresAt)',
    'if (now < 0)',
  ),
  resolve(
    'the verdict of the gates',
    'requireVerdict(desired.verdicts ?? [], {',
    'void (() => requireVerdict)(); void ({',
    ['attack/gates'],
  ),
  of('bundle/compatibility.ts', OFFERS)(
    'the architecture of the host',
    "if (manifest.arch !== 'any' && manifest.arch !== host.arch) {",
    "if (manifest.arch !== 'any' && host.agent < 0) {",
  ),
  of('bundle/trust/logged.ts', log)(
    'the log entry is of this pin',
    "if (entry.type !== 'pin' || entry.details['digest'] !== digest) {",
    "if (entry.type === '') {",
  ),
  of('bundle/trust/logged.ts', log)(
    'the log is the one of before',
    'if (!isConsistent(older, newer, proof)) {',
    'if (older.size < 0) {',
  ),
  of('bundle/log/proof.ts', log)(
    'the entry is in the tree',
    'if (!isIncluded(leafHash(proof.entry), proof.index, head.size, head.root, proof.hashes)) {',
    'if (proof.index < 0) {',
    ['unit/bundle/log'],
  ),
  of('bundle/log/checkpoint.ts', log)(
    'the checkpoint is signed',
    'if (signature.length !== SIGNATURE_BYTES || !verify(message, signature, key.bytes)) {',
    'if (signature.length < 0) {',
    ['unit/bundle/log'],
  ),
  of('agent/adapters/trust-client.ts', OFFERS)(
    'time never before the floor',
    'return Math.max(system, floor);',
    'return system;',
  ),
  of('agent/adapters/trust-client.ts', OFFERS)(
    'the floor of time ends at what offline keys signed',
    'Math.max(memory.timeFloor, Math.min(signed, limit));',
    'Math.max(memory.timeFloor, signed); void limit;',
  ),
  of('agent/adapters/trust-client.ts', ['integration/trust-files'])(
    'a file below what was committed',
    'if (manifest.release < committed) {',
    'if (committed < 0) {',
  ),
  of('agent/adapters/identity.ts', ['integration/control/clocks'])(
    'signed time answers our question',
    'if (host !== record.host || answered !== nonce)',
    "if (host === ('' as never))",
  ),
  of('protocol/http-signature.ts', ['attack/request-signature', 'unit/protocol/http-signature'])(
    'the digest of the body that came',
    "if (headerOf(message, 'content-digest') !== contentDigestOf(bodySha256))",
    "if (headerOf(message, 'content-digest') === '')",
  ),
  of('protocol/http-signature.ts', ['attack/request-signature', 'unit/protocol/http-signature'])(
    'tag and algorithm of requests',
    "if (parameters.alg !== 'ed25519' || parameters.tag !== SIGNATURE_TAG)",
    "if (parameters.alg === '')",
  ),
  of('control/trust/proposal.ts', ['integration/control/hardening', 'unit/control/trust'])(
    'a proposal has its signatures',
    'if (signedBy.size < roleKeys.threshold) {',
    'if (signedBy.size < 0) {',
  ),
  of('control/trust/proposal.ts', ['integration/control/hardening'])(
    'a proposal publishes what it lists',
    'if (!listed.has(file.name)) throw',
    "if (file.name === '') throw",
  ),
  of('control/trust/proposal.ts', ['integration/control/hardening'])(
    'a document under its own name',
    'file.name !== `metadata/${signed.version}.${role}.json`',
    "file.name === ''",
  ),
  of('control/engine/pins.ts', ['integration/control/hardening'])(
    'a signed pin grows',
    'if (document.seq <= group.pinSeq)',
    'if (document.seq < 0)',
  ),
];
