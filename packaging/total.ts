/**
 * Totals a CI run: the JSON reports of vitest and the lists of single checks in one directory. Prints what failed, and as the last line
 * `N passed, N failed`. A report that is missing or whose run ended badly without a failed test counts as one failure.
 */
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import * as v from 'valibot';

const report = v.object({
  testResults: v.array(
    v.object({
      name: v.string(),
      status: v.string(),
      message: v.optional(v.string(), ''),
      assertionResults: v.array(v.object({ status: v.string(), fullName: v.string() })),
    }),
  ),
});

interface Total {
  readonly passed: number;
  readonly failures: readonly string[];
}

/** Tests of one report. A file that could not be loaded has no tests and counts as a failure of its own. */
function ofReport(path: string, tier: string, exitCode: string): Total {
  if (!existsSync(path))
    return { passed: 0, failures: [`${tier}: no report, exit code ${exitCode}`] };
  const parsed = v.safeParse(report, JSON.parse(readFileSync(path, 'utf8')));
  if (!parsed.success) return { passed: 0, failures: [`${tier}: report not understood`] };
  let passed = 0;
  const failures: string[] = [];
  for (const file of parsed.output.testResults) {
    const failed = file.assertionResults.filter((test) => test.status === 'failed');
    passed += file.assertionResults.filter((test) => test.status === 'passed').length;
    failures.push(...failed.map((test) => `${tier}: ${file.name}: ${test.fullName}`));
    if (file.status === 'failed' && failed.length === 0)
      failures.push(`${tier}: ${file.name}: ${file.message}`);
  }
  if (exitCode !== '0' && failures.length === 0)
    failures.push(`${tier}: exit code ${exitCode} without a failed test`);
  if (exitCode === '0' && passed === 0) failures.push(`${tier}: no test ran`);
  return { passed, failures };
}

/** The last line `N passed, N failed` of a program that counts for itself. */
function ofLog(path: string, tier: string, exitCode: string): Total {
  const found = [...readFileSync(path, 'utf8').matchAll(/^(\d+) passed, (\d+) failed$/gm)].at(-1);
  if (found === undefined)
    return { passed: 0, failures: [`${tier}: no total, exit code ${exitCode}`] };
  const failed = Number(found[2]);
  const failures = Array.from(
    { length: failed },
    (_, at) => `${tier}: failure ${at + 1}, see above`,
  );
  if (exitCode !== '0' && failed === 0) failures.push(`${tier}: exit code ${exitCode}`);
  return { passed: Number(found[1]), failures };
}

function lines(path: string): readonly string[] {
  return existsSync(path)
    ? readFileSync(path, 'utf8')
        .split('\n')
        .filter((line) => line !== '')
    : [];
}

const [directory = '.'] = process.argv.slice(2);
let passed = lines(join(directory, 'passed')).length;
const failures = [...lines(join(directory, 'failed'))];
for (const file of readdirSync(directory).filter((name) => name.endsWith('.exit'))) {
  const tier = basename(file, '.exit');
  const exitCode = readFileSync(join(directory, file), 'utf8').trim();
  const log = join(directory, `${tier}.log`);
  const total = existsSync(log)
    ? ofLog(log, tier, exitCode)
    : ofReport(join(directory, `${tier}.json`), tier, exitCode);
  passed += total.passed;
  failures.push(...total.failures);
}
for (const failure of failures) process.stdout.write(`failed: ${failure}\n`);
process.stdout.write(`${passed} passed, ${failures.length} failed\n`);
process.exitCode = failures.length === 0 ? 0 : 1;
