/**
 * Planted bugs: each changes the text of one or two modules while they are loaded (plant.ts), never the files. What stands in
 * `from` has to be there exactly once, so that a mutant of code that changed is an error and not a survivor.
 */
export interface Edit {
  readonly file: string;
  readonly from: string;
  readonly to: string;
}
export interface SimMutant {
  readonly name: string;
  readonly edits: readonly Edit[];
}

const one = (name: string, file: string, from: string, to: string): SimMutant => ({
  name,
  edits: [{ file, from, to }],
});

export const simMutants: readonly SimMutant[] = [
  one(
    'an attempt that ended is ended again',
    'control/core/report.ts',
    "if (attempt.outcome !== 'open') return attempt;",
    '',
  ),
  {
    name: 'offers are made during a halt',
    edits: [
      {
        file: 'control/core/plan.ts',
        from: 'function offers(scene: Scene): Decision[] {\n  if (scene.fleetHalt !== null || scene.groupHalt !== null) return [];',
        to: 'function offers(scene: Scene): Decision[] {',
      },
      {
        file: 'control/core/desired.ts',
        from: 'if (fleetHalt !== null)',
        to: 'if (fleetHalt !== null && scene.now < 0)',
      },
      {
        file: 'control/core/desired.ts',
        from: 'if (groupHalt !== null)',
        to: 'if (groupHalt !== null && scene.now < 0)',
      },
    ],
  },
  one('a halt is not stored', 'control/engine/draft.ts', 'await writer.putHalt(halt);', ''),
  one(
    'a version that failed on a host is offered again',
    'control/core/desired.ts',
    'function historyBlock(scene: Scene, host: Host, target: Target): string | null {',
    'function historyBlock(scene: Scene, host: Host, target: Target): string | null {\n  if (scene.now > 0) return null;',
  ),
  one(
    'the next wave opens without a quiet time',
    'control/core/stage.ts',
    'if (scene.now < soakUntilMs)',
    'if (scene.now < 0 * soakUntilMs)',
  ),
  {
    name: 'the failure bound is not looked at',
    edits: [
      {
        file: 'control/core/stage.ts',
        from: 'all.failures <= limit * Math.max(1, all.results);',
        to: 'all.failures >= 0;',
      },
      {
        file: 'control/core/stage.ts',
        from: 'if (early >= stopFailures)',
        to: 'if (early >= stopFailures && early < 0)',
      },
      {
        file: 'control/core/stage.ts',
        from: 'if (low > maxFailurePercent / 100)',
        to: 'if (low > maxFailurePercent)',
      },
    ],
  },
  one(
    'an offer is made to a host unheard since a restore',
    'control/core/desired.ts',
    'if (scene.isRestored && host.observedEpoch < scene.epoch)',
    'if (scene.isRestored && host.observedEpoch < 0)',
  ),
  one(
    'a lease is not freed by the end of its attempt',
    'control/core/report.ts',
    "outcome: outcome ?? 'open',",
    "outcome: outcome === 'confirmed' ? 'confirmed' : 'open',",
  ),
  one(
    'a host is offered something while it has a lease',
    'control/core/plan.ts',
    'if (openAttempt(host) !== null || !isOnline(host, scene.now, scene.offlineAfterMs)) continue;',
    'if (!isOnline(host, scene.now, scene.offlineAfterMs)) continue;',
  ),
  one(
    'a late report overwrites what is known',
    'control/core/report.ts',
    "if (verdict === 'new') {",
    'if (verdict.length > 0) {',
  ),
  {
    name: 'a revoked version is offered',
    edits: [
      {
        file: 'control/core/plan.ts',
        from: 'return scene.releases.get(artifactOf(id))?.revoked != null;',
        to: 'return scene.releases.get(artifactOf(id)) === null;',
      },
      {
        file: 'control/core/desired.ts',
        from: 'if (release.revoked !== null) return',
        to: 'if (release.revoked !== null && scene.now < 0) return',
      },
    ],
  },
  one(
    'a restored control does not ask its hosts',
    'control/http/poll.ts',
    'fleet.isRestored && host.observedEpoch < fleet.epoch',
    'fleet.isRestored && host.observedEpoch < 0',
  ),
  one(
    'one late poll of an earlier boot is a clone',
    'control/http/strays.ts',
    'first.set(host, { boot, atMs: nowMs });\n      return false;',
    'first.set(host, { boot, atMs: nowMs });\n      return true;',
  ),
  one(
    'control does not notice that its store is old',
    'control/http/poll.ts',
    'return told.epoch > fleet.epoch || isNewer ?',
    'return told.epoch < 0 && isNewer ?',
  ),
  one(
    'a held host is offered something',
    'control/core/desired.ts',
    'if (host.hold !== null)',
    'if (host.hold !== null && scene.now < 0)',
  ),
  one(
    'a paused rollout goes on',
    'control/engine/rollouts.ts',
    "{ ...rollout, state: 'paused', words: `paused by ${actor}: ${reason}` }",
    '{ ...rollout, words: `paused by ${actor}: ${reason}` }',
  ),
  one(
    'the agent commits without asking its checks',
    'agent/core/health.ts',
    'if (!rule.required || isForgiven(rule, baselinePassed)) return true;\n  const tally',
    'if (rule.name !== "") return true;\n  const tally',
  ),
  {
    name: 'the agent forgets what it rolled back',
    edits: [
      {
        file: 'agent/core/turn.ts',
        from: 'const entry = state.denied.find((denied) => denied.artifactId === of.artifactId);',
        to: 'const entry = state.denied.find((denied) => denied.artifactId === "");',
      },
      {
        file: 'control/core/desired.ts',
        from: 'function historyBlock(scene: Scene, host: Host, target: Target): string | null {',
        to: 'function historyBlock(scene: Scene, host: Host, target: Target): string | null {\n  if (scene.now > 0) return null;',
      },
    ],
  },
  one(
    'the agent does not keep its floor',
    'agent/adapters/trust-client.ts',
    'if (release <= (memory.committed[offerClass] ?? 0)) return;',
    'if (release > 0) return;',
  ),
  one(
    'reports are forgotten before they are sent',
    'agent/reporter.ts',
    'const answer = await control.report(',
    'await stored(store.acknowledgeReports(events.map((event: ReportEvent) => event.id)));\n    const answer = await control.report(',
  ),
  one(
    'the agent goes on with an old assignment',
    'agent/poller.ts',
    "if (answer.kind === 'assignment') {",
    "if (answer.kind === 'assignment' && last === null) {",
  ),
  one(
    'the agent does not learn where its reports stand',
    'agent/reporter.ts',
    'const { lastSeq } = problem.details;',
    'const lastSeq: unknown = null;',
  ),
  one(
    'the agent goes on through a halt',
    'agent/core/orders.ts',
    'modes: { ...later.modes, halted: assignment.halted },',
    'modes: { ...later.modes, halted: false },',
  ),
  one(
    'the agent accepts what was revoked',
    'bundle/trust/resolve.ts',
    "if (memory.revokedArtifacts.includes(artifactId)) {\n    throw new Problem('E_REVOKED', `artifact",
    "if (memory.revokedArtifacts.includes('')) {\n    throw new Problem('E_REVOKED', `artifact",
  ),
  one(
    'a replaced file is not synced',
    'agent/adapters/durable.ts',
    'await writeAll(file, bytes, 0);\n      await file.sync();',
    'await writeAll(file, bytes, 0);',
  ),
  one(
    'the journal is not synced',
    'agent/adapters/durable.ts',
    'await writeAll(file, record, position);\n  await file.sync();',
    'await writeAll(file, record, position);',
  ),
  one(
    'no directory is synced',
    'agent/adapters/durable.ts',
    '(directory) => directory.sync());',
    'async () => undefined);',
  ),
  one(
    'no ticket is written',
    'agent/executors.ts',
    "'write-ticket': ({ ticket }) => done(store.writeTicket(ticket)),",
    "'write-ticket': ({ ticket }) => done(Promise.resolve(void ticket)),",
  ),
];
