/** npm run sim: histories of a simulated fleet. */
import { simulate } from './simulation.ts';
const seed = Number(process.argv[2] ?? 1);
const out = await simulate({
  seed,
  hosts: Number(process.argv[3] ?? 6),
  hours: Number(process.argv[4] ?? 2),
});
if (process.argv[5] !== undefined || out.violation !== null)
  console.log(out.lines.slice(-60).join('\n'));
console.log(out.violation, out.hash, out.tally);
