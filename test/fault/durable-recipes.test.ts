/** The recipes of durable.ts in every crash state of every model, and with every operation failing. */
import { describe, expect, it } from 'vitest';
import {
  makeDirectory,
  openDirectory,
  readFile,
  removeFile,
  removeTemporaries,
  replaceFile,
  switchLink,
} from '#/agent/adapters/durable.ts';
import { errnoOf } from '#/agent/adapters/file-port.ts';
import { openJournal } from '#/agent/adapters/journal.ts';
import type { FilePort } from '#/agent/ports.ts';
import { isProblem } from '#/protocol/errors.ts';
import { crashStates, persistenceModels } from '#/test/support/sim-fs/crash-states.ts';
import { emptyImage, type Image } from '#/test/support/sim-fs/image.ts';
import { simFs, type SimFs } from '#/test/support/sim-fs/sim-fs.ts';

const limit = 1024 * 1024;

/** A disk on which `prepare` ran and is durable. */
async function prepared(prepare: (files: FilePort) => Promise<void>): Promise<Image> {
  const sim = simFs(emptyImage());
  await prepare(sim.files);
  return sim.image();
}

/** Runs `act` with marks of what was acknowledged, then `check` on every crash state. Returns the number of states. */
async function explore(
  start: Image,
  act: (sim: SimFs, acknowledge: (what: string) => void) => Promise<void>,
  check: (files: FilePort, acknowledged: string) => Promise<void>,
): Promise<number> {
  let states = 0;
  for (const model of persistenceModels) {
    const sim = simFs(start);
    await act(sim, (what) => sim.mark(what));
    for (const state of crashStates({ base: start, log: sim.log }, model, { seed: 1 })) {
      await check(simFs(state.image).files, String(state.world ?? ''));
      states += 1;
    }
  }
  return states;
}

async function textOf(files: FilePort, path: string): Promise<string> {
  const bytes = await readFile(files, path, limit);
  return bytes === null ? 'nothing' : Buffer.from(bytes).toString('latin1');
}

describe('durable recipes', () => {
  it('H02 replaceFile leaves the old or the new content, and the new one once acknowledged', async () => {
    const old = 'o'.repeat(1500);
    const start = await prepared((files) => replaceFile(files, '/file', Buffer.from(old)));
    const states = await explore(
      start,
      async (sim, acknowledge) => {
        for (const text of ['1'.repeat(3000), '2', '']) {
          await replaceFile(sim.files, '/file', Buffer.from(text));
          acknowledge(`got ${text}`);
        }
      },
      async (files, acknowledged) => {
        await removeTemporaries(files, '/');
        const found = await textOf(files, '/file');
        const order = [old, '1'.repeat(3000), '2', ''];
        const reached = acknowledged === '' ? 0 : order.indexOf(acknowledged.slice(4));
        expect([order[reached], order[reached + 1]]).toContain(found);
        expect((await files.list('/')).map((entry) => entry.name)).toEqual(['file']);
      },
    );
    expect(states).toBeGreaterThan(80);
  });

  it('F31 power cut in the middle of the link swap leaves the old or the new target', async () => {
    const start = await prepared((files) => switchLink(files, 'releases/old', '/current'));
    const states = await explore(
      start,
      async (sim, acknowledge) => {
        await switchLink(sim.files, 'releases/new', '/current');
        acknowledge('new');
      },
      async (files, acknowledged) => {
        await removeTemporaries(files, '/');
        const target = await files.readlink('/current');
        expect(acknowledged === '' ? ['releases/old', 'releases/new'] : ['releases/new']).toContain(
          target,
        );
        // And the switch works again from there, over whatever was left behind.
        await switchLink(files, 'releases/new', '/current');
        expect(await files.readlink('/current')).toBe('releases/new');
      },
    );
    expect(states).toBeGreaterThan(20);
  });

  it('H02 an acknowledged directory is there, and an acknowledged removal stays', async () => {
    const start = await prepared((files) => replaceFile(files, '/gone', Buffer.from('x')));
    await explore(
      start,
      async (sim, acknowledge) => {
        await makeDirectory(sim.files, '/made');
        acknowledge('made');
        await replaceFile(sim.files, '/made/file', Buffer.from('kept'));
        acknowledge('made file');
        await removeFile(sim.files, '/gone');
        acknowledge('made file removed');
      },
      async (files, acknowledged) => {
        if (acknowledged.includes('made')) expect(await files.stat('/made')).not.toBeNull();
        if (acknowledged.includes('file')) expect(await textOf(files, '/made/file')).toBe('kept');
        if (acknowledged.includes('removed')) expect(await files.stat('/gone')).toBeNull();
      },
    );
  });

  it('F2 H02 the journal keeps every acknowledged record, in order, and takes new ones', async () => {
    const limits = { recordBytes: 4096, rotateBytes: 3000 };
    const body = (
      text: string,
    ): Parameters<Awaited<ReturnType<typeof openJournal>>['append']>[0] => ({
      bootId: 'b',
      monotonicMs: 1,
      wallMs: 2,
      data: text.repeat(600),
    });
    const states = await explore(
      emptyImage(),
      async (sim, acknowledge) => {
        await openDirectory(sim.files, '/state');
        const journal = await openJournal(sim.files, '/state/journal', limits);
        for (const text of ['a', 'b', 'c', 'd', 'e', 'f', 'g']) {
          const { seq } = await journal.append(body(text));
          acknowledge(`${seq}`);
        }
      },
      async (files, acknowledged) => {
        await openDirectory(files, '/state');
        const first = await openJournal(files, '/state/journal', limits);
        const reached = Number(acknowledged || 0);
        const last = first.records.at(-1);
        expect([reached, reached + 1]).toContain(last?.seq ?? 0);
        expect(first.damage).not.toBe('rotten');
        if (last !== undefined) {
          expect(last.data).toBe('abcdefg'.charAt(last.seq - 1).repeat(600));
        }
        const added = await first.append(body('z'));
        const again = await openJournal(files, '/state/journal', limits);
        expect(again.records.at(-1)).toEqual(added);
        expect(again.damage).toBe('none');
      },
    );
    expect(states).toBeGreaterThan(150);
  });
});

describe('failing operations', () => {
  const errnos = [
    ['ENOSPC', 'E_SPACE'],
    ['EIO', 'E_IO'],
    ['EROFS', 'E_READ_ONLY'],
  ] as const;

  it.each(errnos)(
    'F18 F25 F29 replaceFile with %s at any operation: old or new, %s',
    async (errno, code) => {
      const start = await prepared((files) => replaceFile(files, '/file', Buffer.from('old')));
      for (let failing = 0; ; failing += 1) {
        const sim = simFs(start, (operation) => (operation.index === failing ? errno : null));
        try {
          await replaceFile(sim.files, '/file', Buffer.from('new'));
          expect(failing).toBeGreaterThan(3);
          break;
        } catch (error) {
          expect(isProblem(error, code)).toBe(true);
        }
        expect(['old', 'new']).toContain(await textOf(sim.files, '/file'));
        expect(await sim.files.stat('/.file.tmp')).toBeNull();
      }
    },
  );

  it('F25 after a failed fsync the descriptor takes no write and no second fsync', async () => {
    const sim = simFs(emptyImage(), ({ name }) => (name === 'sync' ? 'EIO' : null));
    const file = await sim.files.open('/file', 'create');
    await file.write(Buffer.from('x'), 0);
    await expect(file.sync()).rejects.toMatchObject({ code: 'E_IO' });
    await expect(file.sync()).rejects.toMatchObject({ code: 'E_IO' });
    await expect(file.write(Buffer.from('y'), 1)).rejects.toMatchObject({ code: 'E_IO' });
  });

  it('F25 a journal whose fsync failed is opened anew and loses nothing acknowledged', async () => {
    let failing = false;
    const sim = simFs(emptyImage(), ({ name }) => (failing && name === 'sync' ? 'EIO' : null));
    const record = { bootId: 'b', monotonicMs: 0, wallMs: 0, data: 'x' };
    const journal = await openJournal(sim.files, '/journal');
    await journal.append(record);
    failing = true;
    await expect(journal.append(record)).rejects.toMatchObject({ code: 'E_IO' });
    failing = false;
    await expect(journal.append(record)).rejects.toMatchObject({ code: 'E_IO' });
    const again = await openJournal(sim.files, '/journal');
    await again.append({ ...record, data: 'after' });
    for (const state of crashStates({ base: emptyImage(), log: sim.log }, 'weak', { seed: 1 })) {
      if (state.cut < sim.log.length) continue;
      const found = await openJournal(simFs(state.image).files, '/journal');
      expect(found.records.at(0)?.data).toBe('x');
      expect(found.records.at(-1)?.data).toBe('after');
    }
  });

  it('short writes are continued until all bytes are there', async () => {
    const sim = simFs(emptyImage(), ({ name }) => (name === 'write' ? 'short' : null));
    await replaceFile(sim.files, '/file', Buffer.from('0123456789'.repeat(10)));
    expect(await textOf(sim.files, '/file')).toBe('0123456789'.repeat(10));
  });

  it('H01 a planted link or file in the place of the temporary is removed, never written through', async () => {
    const sim = simFs(emptyImage());
    await replaceFile(sim.files, '/victim', Buffer.from('precious'));
    await sim.files.symlink('victim', '/.file.tmp');
    await replaceFile(sim.files, '/file', Buffer.from('new'));
    expect(await textOf(sim.files, '/victim')).toBe('precious');
    expect(await textOf(sim.files, '/file')).toBe('new');
    await sim.files.symlink('victim', '/.link.tmp');
    await switchLink(sim.files, 'target', '/link');
    expect(await sim.files.readlink('/link')).toBe('target');
  });

  it('a file over its limit, or a directory in its place, is E_STATE', async () => {
    const sim = simFs(emptyImage());
    await replaceFile(sim.files, '/file', Buffer.from('12345'));
    await expect(readFile(sim.files, '/file', 4)).rejects.toMatchObject({ code: 'E_STATE' });
    await makeDirectory(sim.files, '/directory');
    await expect(readFile(sim.files, '/directory', 4)).rejects.toMatchObject({ code: 'E_STATE' });
    await expect(makeDirectory(sim.files, '/file')).rejects.toMatchObject({ code: 'E_IO' });
    expect(errnoOf(new Error('other'))).toBeNull();
  });
});
