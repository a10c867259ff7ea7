/** Versions for simulated hosts: real manifests over a few bytes of payload. */
import { createHash } from 'node:crypto';
import { canonicalDocument } from '#/bundle/canonical.ts';
import { manifestSchema, type Manifest } from '#/bundle/manifest.ts';
import type { ArtifactId } from '#/protocol/ids.ts';
import * as v from 'valibot';

export interface Version {
  readonly artifactId: ArtifactId;
  readonly manifest: Manifest;
  readonly manifestBytes: Uint8Array;
  /** The one file of the payload. */
  readonly content: Uint8Array;
  readonly healthy: boolean;
}

/** A version with one check; `healthy` is whether that check passes once it runs. */
export function version(release: number, healthy = true): Version {
  const content = Buffer.from(`version ${release} `.repeat(60));
  const manifest = v.parse(manifestSchema, {
    schema: 'switchback.manifest/1',
    name: 'app',
    class: 'web',
    arch: 'any',
    version: `1.${release}.0`,
    release,
    created: 1_700_000_000,
    minAgent: 0,
    minFrom: 0,
    index: { sha256: '0'.repeat(64), sizeBytes: 0 },
    dataBytes: content.byteLength,
    payloads: [
      {
        kind: 'tree',
        name: 'root',
        chunker: 'acdc-32k',
        sizeBytes: content.byteLength,
        chunkCount: 1,
        entryCount: 1,
        treeSha256: createHash('sha256').update(content).digest('hex'),
      },
    ],
    activation: { kind: 'process', argv: ['app'], stopTimeoutMs: 1000 },
    health: [
      {
        kind: 'tcp',
        name: 'port',
        host: '127.0.0.1',
        port: 80,
        required: true,
        timeoutMs: 1000,
        intervalMs: 1000,
        successesNeeded: 2,
        failuresAllowed: 1,
        baseline: 'must-pass',
        startAfterMs: 0,
      },
    ],
    trial: { soakMs: 3000, deadlineMs: 60_000, maxBoots: 3, control: 'offline-ok' },
  });
  const manifestBytes = canonicalDocument(manifest);
  const artifactId = createHash('sha256').update(manifestBytes).digest('hex') as ArtifactId;
  return { artifactId, manifest, manifestBytes, content, healthy };
}
