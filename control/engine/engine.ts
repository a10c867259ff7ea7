/**
 * The single writer (rule 10): every change is one job, jobs run one after the other, each is one transaction; then the groups
 * that it touched are planned, in a transaction of their own. When the store cannot be written nothing changes in memory
 * either: no new offer is made (F72).
 */
import { applied, changeOf, type World } from '#/control/core/apply.ts';
import { type Group, isActive, openAttempt, type Scene } from '#/control/core/model.ts';
import { type Decision, plan } from '#/control/core/plan.ts';
import type { Store } from '#/control/store/port.ts';
import { isProblem, must, Problem } from '#/protocol/errors.ts';
import type { GroupName } from '#/protocol/ids.ts';
import type { AuditEntry } from '#/protocol/operator-plane.ts';
import { type Draft, openDraft, takeOver } from './draft.ts';
import { createBuckets, type Fleet, fleetOf, sceneOf } from './fleet.ts';

/** Jobs that wait at most; above that the caller is told to come again. */
const MAX_WAITING = 10_000;
/** Jobs that run before the groups that they touched are planned, together. */
const MAX_BATCH = 64;
/** Rounds of planning in one transaction; what is left follows at the next tick. */
const MAX_ROUNDS = 64;

export interface EngineOptions {
  readonly store: Store;
  readonly nowMs: () => number;
  /** Called with the entries of each commit. */
  readonly onAudit?: (entries: readonly AuditEntry[]) => void;
  readonly onDecision?: (group: GroupName, decision: Decision) => void;
  /** A plan that could not be stored; it is made again at the next tick. */
  readonly onPlanFailure?: (error: unknown) => void;
}

export interface Engine {
  readonly fleet: Fleet;
  readonly store: Store;
  readonly nowMs: () => number;
  readonly bucket: Scene['bucket'];
  scene(group: Group): Scene;
  /** Runs one change in one transaction. Resolves once it is durable and in memory. */
  change<T>(work: (draft: Draft) => Promise<T>): Promise<T>;
  /** Plans these groups soon. */
  touch(group: GroupName): void;
  /** Plans every group whose clock may have something to say. */
  tick(isFull: boolean): Promise<void>;
  /** Resolves when nothing waits. */
  settled(): Promise<void>;
  readonly load: {
    readonly waiting: number;
    readonly oldestMs: number;
    readonly isStoreDown: boolean;
  };
}

interface Job {
  readonly sinceMs: number;
  readonly run: () => Promise<void>;
}

/** The engine over a store; plans everything once, so that a crash between a report and its consequence heals (F71). */
export async function startEngine(options: EngineOptions): Promise<Engine> {
  const { store, nowMs } = options;
  const fleet = fleetOf(await store.load(), await store.trustFiles());
  const bucket = createBuckets();
  const queue: Job[] = [];
  const dirty = new Set<GroupName>();
  let running: Promise<void> | null = null;
  let isStoreDown = false;

  const inTransaction = async <T>(work: (draft: Draft) => Promise<T>): Promise<T> => {
    const now = nowMs();
    const commit = async (): Promise<{ result: T; finish: () => void }> =>
      store.write(async (writer) => {
        const { draft, log, settle } = openDraft(fleet, writer, now, bucket);
        const result = await work(draft);
        await settle();
        const finish = (): void => {
          takeOver(fleet, draft, log);
          for (const name of draft.dirty) dirty.add(name);
          fleet.lastAuditId = log.entries.at(-1)?.id ?? fleet.lastAuditId;
          if (log.entries.length > 0) options.onAudit?.(log.entries);
        };
        return { result, finish };
      });
    try {
      const { result, finish } = await commit();
      isStoreDown = false;
      finish();
      return result;
    } catch (error) {
      if (error instanceof Problem && error.code === 'E_UNAVAILABLE') isStoreDown = true;
      throw error;
    }
  };

  const planDirty = async (): Promise<void> => {
    const names = [...dirty];
    dirty.clear();
    for (const name of names) {
      try {
        const group = fleet.groups.get(name);
        if (group === undefined) continue;
        // Looked at outside of a transaction, because mostly there is nothing to decide. One writer: it still holds inside.
        const first = plan(sceneOf(fleet, group, nowMs(), bucket));
        if (first.length === 0) continue;
        const made = await inTransaction((draft) => planGroup(draft, name, first));
        for (const decision of made) options.onDecision?.(name, decision);
        // Its own writes need no second look: planGroup went on until nothing was left to decide.
        if (made.length < MAX_ROUNDS) dirty.delete(name);
      } catch (error) {
        if (!isProblem(error, 'E_UNAVAILABLE')) throw error;
        for (const each of names) dirty.add(each);
        options.onPlanFailure?.(error);
        return;
      }
    }
  };

  const drain = async (): Promise<void> => {
    // Starts in a turn of its own, so that `running` is set before it can be cleared.
    await Promise.resolve();
    for (;;) {
      for (let done = 0; done < MAX_BATCH; done += 1) {
        const job = queue.shift();
        if (job === undefined) break;
        await job.run();
      }
      if (dirty.size > 0) await planDirty();
      // The store refused the plan: the next job or tick tries again, not this loop.
      if (queue.length === 0 && (dirty.size === 0 || isStoreDown)) break;
    }
    running = null;
  };
  const start = (): void => {
    running ??= drain();
  };

  const engine: Engine = {
    fleet,
    store,
    nowMs,
    bucket,
    scene: (group) => sceneOf(fleet, group, nowMs(), bucket),
    change: (work) => {
      if (queue.length >= MAX_WAITING)
        return Promise.reject(new Problem('E_UNAVAILABLE', `${queue.length} changes wait already`));
      const { promise, resolve, reject } =
        Promise.withResolvers<Awaited<ReturnType<typeof work>>>();
      queue.push({
        sinceMs: nowMs(),
        run: async () => {
          try {
            resolve((await inTransaction(work)) as Awaited<ReturnType<typeof work>>);
          } catch (error) {
            reject(error as Error);
          }
        },
      });
      start();
      return promise;
    },
    touch: (group) => {
      dirty.add(group);
      start();
    },
    tick: async (isFull) => {
      for (const group of fleet.groups.values())
        if (isFull || isActive(fleet.rolloutOf.get(group.name) ?? null)) dirty.add(group.name);
      start();
      await engine.settled();
    },
    settled: async () => {
      while (running !== null) await running;
    },
    get load() {
      const oldest = queue[0];
      return {
        waiting: queue.length,
        oldestMs: oldest === undefined ? 0 : nowMs() - oldest.sinceMs,
        isStoreDown,
      };
    },
  };
  await engine.tick(true);
  return engine;
}

/** Plans one group until nothing is left to decide, writing as it goes. */
async function planGroup(
  draft: Draft,
  name: GroupName,
  first: readonly Decision[],
): Promise<readonly Decision[]> {
  const made: Decision[] = [];
  for (let round = 0; round < MAX_ROUNDS; round += 1) {
    const scene = draft.scene(draft.group(name));
    const decisions = round === 0 ? first : plan(scene);
    if (decisions.length === 0) return made;
    let world: World = {
      group: scene.group,
      rollout: scene.rollout,
      hosts: new Map(scene.hosts.map((host) => [host.id, host])),
    };
    for (const decision of decisions) {
      world = await applyOne(draft, scene, world, decision);
      made.push(decision);
    }
  }
  return made;
}

async function applyOne(
  draft: Draft,
  scene: Scene,
  world: World,
  decision: Decision,
): Promise<World> {
  const change = changeOf(world, decision, draft.now);
  if (change.group !== null) await draft.putGroup(change.group, false);
  if (change.rollout !== null) {
    await draft.putRollout(change.rollout);
    // All hosts of the group hear of it: a halt must reach those that are about to switch.
    await draft.putGroup(draft.group(scene.group.name), true);
  }
  for (const host of change.hosts) await draft.putHost(host);
  for (const attempt of change.attempts) await draft.putAttempt(attempt);
  await logDecision(draft, world, decision);
  return applied(world, change);
}

async function logDecision(draft: Draft, world: World, decision: Decision): Promise<void> {
  const isAboutHost = decision.kind === 'offer' || decision.kind === 'withdraw';
  const host = isAboutHost ? decision.host : null;
  const attempt = isAboutHost ? (world.hosts.get(decision.host) ?? null) : null;
  const rolloutId =
    decision.kind === 'withdraw'
      ? attempt === null
        ? null
        : (openAttempt(attempt)?.rolloutId ?? null)
      : decision.rolloutId;
  const stage = 'stage' in decision ? decision.stage : null;
  if (rolloutId !== null)
    await draft.writer.addDecision(rolloutId, {
      atMs: draft.now,
      kind: decision.kind,
      host,
      stage,
      words: decision.words,
    });
  const subject = host !== null ? `host/${host}` : `rollout/${rolloutId ?? ''}`;
  must(subject !== 'rollout/', 'R5: a decision is about a host or a rollout');
  await draft.audit('control', `decision.${decision.kind}`, subject, {
    group: world.group.name,
    rolloutId,
    words: decision.words,
    ...('artifactId' in decision ? { artifactId: decision.artifactId } : {}),
  });
}
