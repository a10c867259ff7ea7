/** What the kinds of health checks have in common. */

/** What one run saw. */
export interface Sight {
  readonly ok: boolean;
  readonly detail: string;
}
