/** Machines with one protection taken away. Each has to be caught by an invariant, or the explorer proves nothing. */
import type { Effect } from '#/agent/core/effect.ts';
import { artifactOf, configOf } from '#/protocol/ids.ts';
import type { Event } from '#/agent/core/event.ts';
import { mustJournal, step } from '#/agent/core/machine.ts';
import type { State } from '#/agent/core/state.ts';
import type { Ticket } from '#/agent/core/ticket.ts';
import { issue } from '#/agent/core/turn.ts';
import { type Kind, type Machine, type Nature, realMachine } from './world.ts';

export interface Mutant {
  readonly name: string;
  /** Where it does harm, and the invariants that may notice it first. */
  readonly kind: Kind;
  readonly nature: Nature;
  readonly disturbances: number;
  readonly caughtBy: readonly string[];
  readonly machine: Machine;
}

type Turn = readonly [State, readonly Effect[]];

/** The real machine with its input or its output changed. */
function mutant(
  of: Omit<Mutant, 'machine'>,
  change: {
    readonly before?: (state: State, event: Event) => readonly [State, Event];
    readonly after?: (turn: Turn, state: State, event: Event) => Turn;
    readonly mustJournal?: Machine['mustJournal'];
    readonly mayResume?: Machine['mayResume'];
  },
): Mutant {
  const machine: Machine = {
    mayResume: change.mayResume ?? realMachine.mayResume,
    mustJournal: change.mustJournal ?? realMachine.mustJournal,
    step(state, event) {
      const [input, told] = change.before?.(state, event) ?? [state, event];
      const [next, effects] = step(input, told);
      const turn: Turn = [next === input ? state : next, effects];
      return change.after?.(turn, state, event) ?? turn;
    },
  };
  return { ...of, machine };
}

function withTicket(state: State, change: (ticket: Ticket) => Ticket): State {
  if (!('ticket' in state) || state.ticket === null) return state;
  return { ...state, ticket: change(state.ticket) } as State;
}

/** Replaces the operation that a turn begins by the one of another state. */
function instead(turn: Turn, to: State): Turn {
  const begins = turn[1].some((effect) => 'op' in effect && effect.do !== 'cancel');
  if (!begins) return turn;
  const others = turn[1].filter((effect) => !('op' in effect) || effect.do === 'cancel');
  const [issued, effects] = issue({ ...to, opCounter: turn[0].opCounter });
  return [issued, [...others, ...effects]];
}

/** What the machine forgets: after every turn in `at`, `step` is left out for `next`. */
function skip(name: State['at'], left: string, next: string) {
  return (turn: Turn): Turn => {
    const [state] = turn;
    if (state.at !== name || !('step' in state) || state.step !== left) return turn;
    return instead(turn, { ...state, step: next } as State);
  };
}

const plain = { kind: 'directory', nature: 'unhealthy', disturbances: 0 } as const;

export const mutants: readonly Mutant[] = [
  mutant(
    { ...plain, name: 'commits without health', caughtBy: ['I14'] },
    {
      before: (state, event) =>
        state.at === 'trial' && event.type === 'succeeded' && event.do === 'probe'
          ? [
              state,
              {
                ...event,
                result: { results: event.result.results.map((one) => ({ ...one, ok: true })) },
              },
            ]
          : [state, event],
    },
  ),
  mutant(
    {
      ...plain,
      name: 'commits at the first healthy moment, without soak',
      nature: 'good',
      caughtBy: ['I14'],
    },
    {
      after: (turn) => {
        const [state] = turn;
        if (state.at !== 'trial' || state.step !== 'soak') return turn;
        const { attempt, target, ticket, health } = state;
        const phase = {
          at: 'committing',
          step: 'commit',
          attempt,
          target,
          ticket,
          health,
        } as const;
        const [next, more] = issue({ ...state, ...phase });
        return [next, [...turn[1], ...more]];
      },
    },
  ),
  mutant(
    { ...plain, name: 'writes the live slot', kind: 'partition', caughtBy: ['I2'] },
    {
      after: (turn) => {
        const [state] = turn;
        if (state.at !== 'downloading' || state.attempt.from === null) return turn;
        const { slot } = state.attempt.from;
        return instead(turn, { ...state, target: { slot, identity: slot } });
      },
    },
  ),
  mutant(
    { ...plain, name: 'downloads into a slot that was not marked first', caughtBy: ['I3'] },
    { after: skip('downloading', 'begin', 'fetch') },
  ),
  mutant(
    { ...plain, name: 'has no deny-list', caughtBy: ['I7'] },
    {
      before: (state, event) => [
        { ...state, denied: state.denied.map((entry) => ({ ...entry, retryGeneration: -1 })) },
        event,
      ],
    },
  ),
  mutant(
    { ...plain, name: 'rolls back without denying', caughtBy: ['I7', 'I5', 'I9'] },
    {
      after: (turn) => {
        const [state] = turn;
        if (state.at !== 'rolling-back' || state.denied.length === 0) return turn;
        const forgot: Turn = [{ ...state, denied: [] }, turn[1]];
        return skip('rolling-back', 'deny', 'ticket')(forgot);
      },
    },
  ),
  mutant(
    {
      ...plain,
      name: 'takes a failed read-back for a good one',
      disturbances: 1,
      caughtBy: ['I3'],
    },
    {
      before: (state, event) =>
        state.at === 'verifying' && event.type === 'failed'
          ? [state, { ...event, type: 'succeeded', do: 'verify', result: {} }]
          : [state, event],
      after: (turn) => {
        const [state] = turn;
        if (state.at !== 'staged') return turn;
        const { attempt, target } = state;
        const phase = { at: 'waiting', step: 'drain', opensAt: null, attempt, target } as const;
        return instead(turn, { ...state, ...phase });
      },
    },
  ),
  mutant(
    { ...plain, name: 'writes the ticket after the switch', caughtBy: ['I11'] },
    { after: skip('arming', 'ticket', 'arm') },
  ),
  mutant(
    {
      ...plain,
      name: 'gives a crashed trial a fresh deadline',
      kind: 'partition',
      nature: 'never-passes',
      disturbances: 1,
      caughtBy: ['I10'],
    },
    {
      before: (state, event) => {
        if (event.type !== 'started' || event.ticket === null || event.ticket === 'damaged') {
          return [state, event];
        }
        const fresh = (ticket: Ticket): Ticket => ({
          ...ticket,
          deadlineRunMs: ticket.deadlineRunMs + ticket.plan.deadlineMs,
          lastBootId: '',
        });
        return [withTicket(state, fresh), { ...event, ticket: fresh(event.ticket) }];
      },
    },
  ),
  mutant(
    {
      ...plain,
      name: 'does not count boots, and gives them back',
      kind: 'partition',
      nature: 'never-passes',
      disturbances: 1,
      caughtBy: ['I10'],
    },
    {
      before: (state, event) => {
        if (event.type !== 'started' || event.ticket === null || event.ticket === 'damaged') {
          return [state, event];
        }
        const none = { bootsUsed: -1, lastBootId: '' };
        return [
          withTicket(state, (ticket) => ({ ...ticket, ...none })),
          { ...event, ticket: { ...event.ticket, ...none } },
        ];
      },
    },
  ),
  mutant(
    { ...plain, name: 'ends an attempt twice', nature: 'good', caughtBy: ['I4', 'I5'] },
    {
      after: (turn, before) => {
        const [state] = turn;
        if (before.at !== 'committed' || state.at !== 'idle') return turn;
        const { id, offer } = before.attempt;
        const ref = { id, rolloutId: offer.rolloutId, artifactId: offer.artifactId };
        const report = {
          key: `${id}.end`,
          attempt: id,
          rolloutId: ref.rolloutId,
          artifactId: ref.artifactId,
          phase: 'aborted',
          code: null,
          message: '',
          atWallMs: 0,
          evidence: {},
        } as const;
        return [{ ...state, unreported: [...state.unreported, report] }, turn[1]];
      },
    },
  ),
  mutant(
    { ...plain, name: 'forgets what it has not reported', disturbances: 1, caughtBy: ['I5'] },
    {
      before: (state, event) =>
        event.type === 'started' ? [{ ...state, unreported: [] }, event] : [state, event],
    },
  ),
  mutant(
    { ...plain, name: 'acts before the journal is durable', caughtBy: ['I11'] },
    { mustJournal: (before, after) => before.at !== after.at && mustJournal(before, after) },
  ),
  mutant(
    {
      ...plain,
      name: 'switches to what it finds when the journal is lost',
      disturbances: 2,
      caughtBy: ['I13', 'I11', 'I3'],
    },
    {
      after: (turn, before, event) => {
        if (event.type !== 'started' || event.journal !== 'lost' || event.facts === null)
          return turn;
        const other = event.facts.slots.find((slot) => slot.slot !== event.facts?.live);
        if (other === undefined || event.ticket !== null) return turn;
        const [state] = turn;
        const effect = {
          do: 'switch',
          slot: other.slot,
          force: false,
          op: state.opCounter,
        } as const;
        return [{ ...before, ...state }, [...turn[1].filter((one) => !('op' in one)), effect]];
      },
    },
  ),
  mutant(
    { ...plain, name: 'lowers the floor', nature: 'good', caughtBy: ['I8'] },
    {
      after: ([state, effects]) => [
        state,
        effects.map((effect) => (effect.do === 'raise-floor' ? { ...effect, release: 0 } : effect)),
      ],
    },
  ),
  mutant(
    { ...plain, name: 'prunes the way back', nature: 'good', caughtBy: ['I1'] },
    {
      after: ([state, effects]) => [
        state,
        effects.map((effect) =>
          effect.do === 'prune' ? { ...effect, keep: effect.keep.slice(0, 1) } : effect,
        ),
      ],
    },
  ),
  mutant(
    { ...plain, name: 'rolls back to the slot on trial', caughtBy: ['I9', 'I1'] },
    {
      after: ([state, effects]) => [
        state,
        effects.map((effect) =>
          effect.do === 'roll-back' ? { ...effect, slot: effect.bad } : effect,
        ),
      ],
    },
  ),
  mutant(
    { ...plain, name: 'needs control for a rollback', caughtBy: ['I9', 'I12'] },
    {
      after: (turn, before, event) => {
        const [state, effects] = turn;
        const waits = state.at === 'rolling-back' && before.at !== 'rolling-back';
        if (!waits || event.type === 'polled') return turn;
        return [{ ...state, op: null }, effects.filter((effect) => !('op' in effect))];
      },
    },
  ),
  mutant(
    {
      ...plain,
      name: 'goes round and round in a bad environment',
      nature: 'bad-environment',
      caughtBy: ['I9', 'I6'],
    },
    {
      before: (state, event) => [
        state.at === 'rollback-verify' || state.at === 'rolling-back'
          ? { ...state, rounds: 1 }
          : state,
        event,
      ],
    },
  ),
  mutant(
    {
      ...plain,
      name: 'rolls a one-way version back',
      nature: 'one-way-unhealthy',
      caughtBy: ['I9'],
    },
    {
      before: (state, event) => [
        'ticket' in state && state.at === 'trial'
          ? withTicket(state, (ticket) => ({ ...ticket, plan: { ...ticket.plan, oneWay: false } }))
          : state,
        event,
      ],
    },
  ),
  mutant(
    { ...plain, name: 'starts the artifact without its config', caughtBy: ['I16'] },
    {
      after: ([state, effects]) => [
        state,
        effects.map((effect) =>
          effect.do === 'activate' && effect.artifactId !== null
            ? { ...effect, artifactId: artifactOf(effect.artifactId) }
            : effect,
        ),
      ],
    },
  ),
  mutant(
    { ...plain, name: 'goes on after a recall', disturbances: 1, caughtBy: ['I15'] },
    {
      before: (state, event) =>
        event.type === 'polled' && 'attempt' in state
          ? [
              state,
              {
                ...event,
                assignment: {
                  ...event.assignment,
                  offer: {
                    artifactId: artifactOf(state.attempt.offer.artifactId),
                    configId: configOf(state.attempt.offer.artifactId) ?? undefined,
                    rolloutId: null,
                    sources: ['x'],
                    retryGeneration: 0,
                  },
                },
              },
            ]
          : [state, event],
    },
  ),
  mutant(
    {
      ...plain,
      name: 'believes the journal, not what is live',
      kind: 'partition',
      nature: 'dead-on-start',
      caughtBy: ['I9', 'I14', 'I11'],
    },
    {
      before: (state, event) => {
        if (!('target' in state)) return [state, event];
        const live = state.target.slot;
        if (event.type === 'started' && event.facts !== null) {
          return [state, { ...event, facts: { ...event.facts, live } }];
        }
        if (event.type !== 'succeeded' || event.do !== 'observe' || state.at !== 'trial') {
          return [state, event];
        }
        return [state, { ...event, result: { facts: { ...event.result.facts, live } } }];
      },
    },
  ),
  mutant(
    {
      ...plain,
      name: 'starts nothing when it starts',
      kind: 'not-enabled',
      disturbances: 1,
      caughtBy: ['I9'],
    },
    { mayResume: () => false },
  ),
  mutant(
    {
      ...plain,
      name: 'starts nothing beside a damaged ticket, and measures what is to be replaced while it is down',
      kind: 'not-enabled',
      disturbances: 2,
      caughtBy: ['I14'],
    },
    {
      mayResume: (ticket, state, facts) =>
        ticket !== 'damaged' && realMachine.mayResume(ticket, state, facts),
    },
  ),
];
