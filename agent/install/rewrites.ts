/** How often a slot that reads back differently is written anew before it is refused (F24). */
import type { Offer } from '#/agent/ports.ts';

const REWRITES = 1;

/** Without sources nothing can be written anew here: whoever has them decides about another try. */
export function mayRewrite(offer: Offer, rewrites: number): boolean {
  return rewrites < REWRITES && offer.sources.length > 0;
}
