/** Releases: upload streamed to disk and verified in full before it is admitted, or admitted by reference. */
import { createWriteStream } from 'node:fs';
import { mkdir, open, readdir, rename, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { attestRelease } from '#/control/engine/gates.ts';
import { admitRelease, revokeRelease } from '#/control/engine/releases.ts';
import { releaseView } from '#/control/engine/views.ts';
import { patchPathOf } from '#/bundle/patch.ts';
import { Problem } from '#/protocol/errors.ts';
import type { ArtifactId } from '#/protocol/ids.ts';
import { artifactsDir } from './artifacts.ts';
import type { Handlers, Services } from './handler.ts';

type ReleaseRoute =
  | 'releaseList'
  | 'releaseShow'
  | 'releaseImport'
  | 'releaseReference'
  | 'releasePatch'
  | 'releaseAttest'
  | 'releaseRevoke';

const PART = '.part';

async function syncDirectory(path: string): Promise<void> {
  const directory = await open(path, 'r');
  try {
    await directory.sync();
  } finally {
    await directory.close();
  }
}

/** Removes what uploads left behind that were cut off by an end of control. Called at start. */
export async function sweepUploads(dataDir: string): Promise<void> {
  const dir = artifactsDir(dataDir);
  await mkdir(dir, { recursive: true, mode: 0o750 });
  for (const name of await readdir(dir)) if (name.endsWith(PART)) await rm(join(dir, name));
}

/** Streams an upload to a file of its own, synced when this resolves. */
async function receive(services: Services, body: AsyncIterable<Uint8Array>): Promise<string> {
  const name = Buffer.from(services.desk.random(12)).toString('hex');
  const path = join(artifactsDir(services.dataDir), `${name}${PART}`);
  try {
    await pipeline(
      Readable.from(body),
      createWriteStream(path, { flags: 'wx', mode: 0o640, flush: true }),
    );
    return path;
  } catch (cause) {
    await rm(path, { force: true });
    if (cause instanceof Problem) throw cause;
    const code = cause instanceof Error && 'code' in cause ? String(cause.code) : '';
    if (code === 'ENOSPC' || code === 'EDQUOT')
      throw new Problem('E_SPACE', 'not enough space for the bundle on control', {}, { cause });
    if (code === 'EIO') throw new Problem('E_IO', 'the disk of control failed', {}, { cause });
    throw new Problem('E_LENGTH', 'the upload ended early', { httpStatus: 400 }, { cause });
  }
}

export const releaseHandlers: Handlers<ReleaseRoute> = {
  releaseList({ services, query }) {
    const { fleet } = services.desk.engine;
    const all = [...fleet.releases.values()]
      .filter((release) => query.class === undefined || release.class === query.class)
      .sort((a, b) => b.importedAtMs - a.importedAtMs || (a.artifactId < b.artifactId ? -1 : 1));
    const from =
      query.cursor === undefined ? 0 : all.findIndex((r) => r.artifactId === query.cursor) + 1;
    const page = all.slice(from, from + query.limit);
    const isMore = from + query.limit < all.length;
    return {
      ok: {
        items: page.map((release) => releaseView(fleet, release)),
        nextCursor: isMore ? (page.at(-1)?.artifactId ?? null) : null,
      },
    };
  },
  releaseShow({ services, params }) {
    const { fleet } = services.desk.engine;
    const release = fleet.releases.get(params.artifact);
    if (release === undefined)
      throw new Problem('E_NOT_FOUND', `there is no release ${params.artifact}`);
    return { ok: releaseView(fleet, release) };
  },
  async releaseImport({ services, body, actor }) {
    const path = await receive(services, body);
    try {
      const bundle = await services.verifyBundle(path);
      const file = `${bundle.artifactId}.bundle`;
      // The file is in its place before anything names it; an import that is refused leaves a file nobody asks for.
      await rename(path, join(artifactsDir(services.dataDir), file));
      await syncDirectory(artifactsDir(services.dataDir));
      const source =
        services.publicUrl === null
          ? `/artifacts/${file}`
          : new URL(`/artifacts/${file}`, services.publicUrl).href;
      const admission = {
        manifestBytes: bundle.manifestBytes,
        envelope: bundle.envelope,
        sources: [source],
        bundleBytes: bundle.fileBytes,
        attestations: bundle.attestations,
      };
      const release = await admitRelease(services.desk, admission, actor);
      return { ok: releaseView(services.desk.engine.fleet, release) };
    } finally {
      await rm(path, { force: true });
    }
  },
  async releasePatch({ services, params, body }) {
    const to = params.artifact;
    const bundleOf = (artifact: string): string =>
      join(artifactsDir(services.dataDir), `${artifact}.bundle`);
    const path = await receive(services, body);
    try {
      const { from } = await services.verifyPatch.header(path);
      const { releases } = services.desk.engine.fleet;
      for (const artifact of [from, to]) {
        if ((releases.get(artifact as ArtifactId)?.bundleBytes ?? null) !== null) continue;
        throw new Problem(
          'E_NOT_FOUND',
          `control does not hold the bundle of ${artifact}: it cannot check the patch`,
        );
      }
      const { fileBytes } = await services.verifyPatch.verify(path, bundleOf(from), bundleOf(to));
      await rename(path, patchPathOf(bundleOf(to), from));
      await syncDirectory(artifactsDir(services.dataDir));
      return { ok: { from: from as ArtifactId, to, patchBytes: fileBytes } };
    } finally {
      await rm(path, { force: true });
    }
  },
  async releaseReference({ services, body, actor }) {
    const admission = {
      manifestBytes: Buffer.from(body.manifest, 'base64'),
      envelope: body.envelope,
      sources: body.sources,
      bundleBytes: null,
    };
    const release = await admitRelease(services.desk, admission, actor);
    return { ok: releaseView(services.desk.engine.fleet, release) };
  },
  async releaseAttest({ services, params, body, actor }) {
    const release = await attestRelease(services.desk, params.artifact, body.statements, actor);
    return { ok: releaseView(services.desk.engine.fleet, release) };
  },
  async releaseRevoke({ services, params, body, actor }) {
    const release = await revokeRelease(services.desk, params.artifact, body.reason, actor);
    return { ok: releaseView(services.desk.engine.fleet, release) };
  },
};
