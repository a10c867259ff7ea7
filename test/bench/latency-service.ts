/**
 * A small loaded service and its clients, as two processes: `latency-service.ts serve SOCKET FILE` answers each request with some work
 * (a digest of 64 KiB, a line in a file); `latency-service.ts load SOCKET` asks at a fixed rate, whatever the answers do, until its
 * input ends, and prints the latencies in microseconds as JSON. For latency.ts.
 */
import { createHash, randomBytes } from 'node:crypto';
import { appendFileSync } from 'node:fs';
import { Agent, createServer, request } from 'node:http';

const [role, socketPath = '', file = ''] = process.argv.slice(2);
const WORK_BYTES = 64 * 1024;
/** 200 requests per second. */
const EVERY_MS = 5;
/** Answers that are still out then are counted with the time that they have waited. */
const LAST_ANSWERS_MS = 2_000;

function serve(): void {
  const content = randomBytes(WORK_BYTES);
  createServer((_, response) => {
    const digest = createHash('sha256').update(content).digest('hex');
    appendFileSync(file, `${digest}\n`);
    response.end(digest);
  }).listen(socketPath, () => process.stdout.write('ready\n'));
}

function load(): void {
  const agent = new Agent({ keepAlive: true, maxSockets: 64 });
  const latencies: number[] = [];
  const startedMs = performance.now();
  let sent = 0;
  let answered = 0;
  let isEnded = false;
  const ask = (dueMs: number): void => {
    const asked = request({ socketPath, path: '/', agent }, (response) => {
      response.resume().on('end', () => {
        // From when it should have been asked: a late client does not hide a slow host.
        latencies.push(Math.round((performance.now() - dueMs) * 1000));
        answered += 1;
      });
    });
    asked.end();
  };
  const tick = (): void => {
    if (isEnded) return;
    for (let due = startedMs + sent * EVERY_MS; due <= performance.now(); ) {
      ask(due);
      sent += 1;
      due = startedMs + sent * EVERY_MS;
    }
    setTimeout(tick, 1);
  };
  tick();
  process.stdin.resume().on('end', () => {
    isEnded = true;
    const untilMs = performance.now() + LAST_ANSWERS_MS;
    const wait = setInterval(() => {
      if (answered < sent && performance.now() < untilMs) return;
      clearInterval(wait);
      process.stdout.write(JSON.stringify(latencies), () => process.exit(0));
    }, 20);
  });
}

if (role === 'serve') serve();
else load();
