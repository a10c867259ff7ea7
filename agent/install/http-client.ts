/**
 * undici behind one dynamic import: a bundler gives a dynamically imported CommonJS package as `default` alone, and a
 * statically imported one by its names. Import this file with `import()`.
 */
export { Pool } from 'undici';
