/** `npm run build && npm run bench:idle [seconds]`: the table of the idle agent alone, the sources beside the shipped one. */
import { idleRows, idleTable } from './idle-rows.ts';

const rows = await idleRows({ seconds: Number(process.argv[2] ?? 60), sources: true }, (what) => {
  process.stderr.write(`skipped: ${what}\n`);
});
process.stdout.write(`${idleTable(rows).join('\n')}\n`);
