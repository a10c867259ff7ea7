/** A container under Switchback: what an operator and an accident do to it, and what can be seen of it. */
import { readFileSync, readlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { waitFor, type Fleet } from '#/test/support/fleet/fleet.ts';
import type { Container } from './container.ts';

const SETTLE_TIMEOUT_MS = 120_000;

interface Status {
  readonly live: { readonly version: string } | null;
  readonly state: string;
}
export interface TimelineEntry {
  readonly kind: string;
  readonly code: string | null;
  readonly words: string;
}
/** What the host is seen to run, from three sides. */
interface Sight {
  /** Of the version that `current` leads to. */
  readonly linked: string;
  /** What the started service said last. */
  readonly started: string;
  readonly isActive: boolean;
}

export class ManagedHost {
  readonly container: Container;
  readonly #fleet: Fleet;
  #id = '';

  constructor(container: Container, fleet: Fleet) {
    this.container = container;
    this.#fleet = fleet;
  }

  get id(): string {
    return this.#id;
  }

  /** With a join text, as the package's documentation says. */
  async enrol(group: string): Promise<void> {
    const { join: text } = await this.#fleet.json<{ join: string }>(['host', 'token', group]);
    const path = join(this.container.root, 'srv/join');
    writeFileSync(path, text, { mode: 0o600 });
    const answer = await this.container.run('switchback-agent enrol --file /srv/join --json');
    this.#id = (JSON.parse(answer) as { host: string }).host;
  }

  async pin(version: string): Promise<void> {
    await this.#fleet.cli(['pin', this.#id, version, '--host', '--reason', 'scenario']);
  }

  async status(): Promise<Status | null> {
    const { code, stdout } = await this.container.try('switchback-agent status --json');
    return code === 0 ? (JSON.parse(stdout) as Status) : null;
  }

  see(): Promise<Sight> {
    return this.container
      .try(
        'sed -n "s/^echo \\([0-9.]*\\) .*/\\1/p" /opt/switchback/current/run; cat /run/web-version; systemctl is-active web.service',
      )
      .then(({ stdout }) => {
        const [linked = '', started = '', active = ''] = stdout.split('\n');
        return { linked, started, isActive: active === 'active' };
      });
  }

  /** Link, service and agent agree on the version, and nothing is under way. */
  async untilSettledOn(version: string): Promise<void> {
    await this.untilRuns(version);
    let last: unknown = null;
    await waitFor(
      `${this.container.name} rests on ${version}`,
      SETTLE_TIMEOUT_MS,
      async () => {
        const status = await this.status();
        last = status;
        return status?.live?.version === version && status.state === 'idle' ? true : null;
      },
      500,
    ).catch((error: unknown) => {
      throw new Error(`${String(error)}; last seen ${JSON.stringify(last).slice(0, 600)}`);
    });
  }

  /** Link and service show it, whatever the agent does. */
  async untilRuns(version: string, timeoutMs = SETTLE_TIMEOUT_MS): Promise<void> {
    let last: Sight | null = null;
    await waitFor(
      `${this.container.name} runs ${version}`,
      timeoutMs,
      async () => {
        last = await this.see();
        return last.linked === version && last.started === version && last.isActive ? true : null;
      },
      300,
    ).catch((error: unknown) => {
      throw new Error(`${String(error)}; last seen ${JSON.stringify(last)}`);
    });
  }

  /** Nothing else ran in all this time. */
  async staysOn(version: string, forMs: number): Promise<void> {
    const until = performance.now() + forMs;
    while (performance.now() < until) {
      const { linked, started } = await this.see();
      if (linked !== version || started !== version)
        throw new Error(`${this.container.name} left ${version}: ${linked}, ${started}`);
      await sleep(500);
    }
  }

  /** The pinned version is started and watched: the agent does not start it a second time any more. */
  async untilOnTrial(version: string): Promise<void> {
    await this.untilRuns(version);
    await waitFor(`${this.container.name} has ${version} on trial`, SETTLE_TIMEOUT_MS, async () =>
      (await this.status())?.state === 'trial' ? true : null,
    );
  }

  /** The ticket as it lies on the disk; empty: none. Read from outside, so it works while the container is down. */
  ticket(): string {
    try {
      return readFileSync(join(this.container.root, 'var/lib/switchback/ticket'), 'latin1');
    } catch {
      return '';
    }
  }

  #linkedSlot(): string {
    try {
      return readlinkSync(join(this.container.root, 'opt/switchback/current')).slice(-64);
    } catch {
      return '';
    }
  }

  /** Waits, in steps of a millisecond, for a moment that the disk shows. Resolves with false when it was over before it was seen. */
  async untilDisk(
    what: string,
    holds: (ticket: string, linkedSlot: string) => boolean,
    isOver: (ticket: string, linkedSlot: string) => boolean = () => false,
  ): Promise<boolean> {
    return await waitFor(
      `${this.container.name}: ${what}`,
      SETTLE_TIMEOUT_MS,
      async () => {
        const [ticket, linked] = [this.ticket(), this.#linkedSlot()];
        if (holds(ticket, linked)) return { seen: true };
        return isOver(ticket, linked) ? { seen: false } : null;
      },
      1,
    ).then(({ seen }) => seen);
  }

  /** Control was told of the rollback of the newest attempt, with this code. */
  async untilReported(code: string, words: RegExp): Promise<void> {
    let last: readonly TimelineEntry[] = [];
    await waitFor(
      `control hears of ${code} ${words.source} on ${this.container.name}`,
      SETTLE_TIMEOUT_MS,
      async () => {
        const { items } = await this.#fleet.json<{ items: TimelineEntry[] }>([
          'host',
          'timeline',
          this.#id,
        ]);
        last = items;
        return items.some((entry) => entry.code === code && words.test(entry.words)) ? true : null;
      },
      1000,
    ).catch((error: unknown) => {
      throw new Error(`${String(error)}; timeline ${JSON.stringify(last.slice(0, 8))}`);
    });
  }

  async remove(): Promise<void> {
    await this.container.remove();
  }
}
