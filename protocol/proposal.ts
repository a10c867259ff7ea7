/** A change of the trust repository that is signed away from control, as a file. docs/specs/trust.md, section 8. */
import * as v from 'valibot';
import { sha256Hex } from './ids.ts';

export const PROPOSAL_MAX_BYTES = 16 * 1024 * 1024;

export const proposalDocument = v.strictObject({
  schema: v.literal('switchback.proposal/1'),
  /** What the change is, in the words of who proposed it. */
  reason: v.pipe(v.string(), v.maxLength(1024)),
  /** Whose signatures it takes: for signers who have no repository at hand. Acceptance looks only at the repository. */
  needs: v.pipe(
    v.array(
      v.strictObject({
        role: v.pipe(v.string(), v.maxLength(128)),
        threshold: v.pipe(v.number(), v.safeInteger(), v.minValue(1)),
        keyIds: v.pipe(v.array(sha256Hex), v.maxLength(64)),
      }),
    ),
    v.maxLength(256),
  ),
  files: v.pipe(
    v.array(
      v.strictObject({
        name: v.pipe(v.string(), v.regex(/^(metadata|targets)\/[A-Za-z0-9._/-]{1,512}$/)),
        base64: v.pipe(v.string(), v.maxLength(PROPOSAL_MAX_BYTES)),
      }),
    ),
    v.maxLength(256),
  ),
});
export type Proposal = v.InferOutput<typeof proposalDocument>;

/** What was published of a proposal. */
export const proposalAnswer = v.strictObject({
  documents: v.array(v.strictObject({ role: v.string(), version: v.number() })),
});

/** The keys that control holds: what whoever takes it over can sign. Never a secret. */
export const heldKeys = v.strictObject({
  keys: v.array(v.strictObject({ use: v.string(), keyId: v.string(), public: v.string() })),
});
