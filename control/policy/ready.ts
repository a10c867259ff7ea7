/** What the thread of the rules says first, once its code is loaded. */
export const READY = 'ready';
