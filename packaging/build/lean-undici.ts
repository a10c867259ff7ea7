/**
 * The agent takes three things of undici. Its index loads everything else too (fetch, caches, mocks, WebSockets), 6 MB that an
 * idle agent would carry. In the built agent `undici` is this.
 */
import type { Plugin } from 'esbuild';
import { repositoryRoot } from './origin.ts';

const source = `
import Agent from 'undici/lib/dispatcher/agent.js';
import Pool from 'undici/lib/dispatcher/pool.js';
import Dispatcher from 'undici/lib/dispatcher/dispatcher.js';
import requestOf from 'undici/lib/api/api-request.js';
// As its index does: agents and pools take requests themselves.
Dispatcher.prototype.request = requestOf;
export { Agent, Pool };
export function request(address, { dispatcher, ...options }) {
  const { origin, pathname, search } = new URL(address);
  return requestOf.call(dispatcher, { ...options, origin, path: pathname + search });
}
`;

export const leanUndici: Plugin = {
  name: 'lean-undici',
  setup(build) {
    build.onResolve({ filter: /^undici$/ }, () => ({ path: 'undici', namespace: 'lean' }));
    build.onLoad({ filter: /^undici$/, namespace: 'lean' }, () => ({
      contents: source,
      loader: 'js',
      resolveDir: repositoryRoot,
    }));
  },
};
