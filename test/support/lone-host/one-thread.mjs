/**
 * Loaded before the first line of the agent: its pool has one thread, so that a number of a system call means the same call in each
 * run. The environment alone does not do: the agent starts itself anew to be rid of such variables (agent/adapters/environment.ts).
 */
import { stat } from 'node:fs';

process.env['UV_THREADPOOL_SIZE'] = '1';
// The first use of the pool makes its threads.
stat('/', () => undefined);
delete process.env['UV_THREADPOOL_SIZE'];
