/** nginx over a directory, on a port of its own; counts what it sent. The same server for everybody who is measured. */
import { spawn } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';

export interface WebServer {
  readonly url: string;
  /** Bytes that were sent since the last call, headers included, and requests. */
  sent(): Promise<{ bytes: number; requests: number }>;
  close(): Promise<void>;
}

const START_TRIES = 100;
/** nginx writes its log at the end of a request. */
const LOG_MS = 150;

async function freePort(): Promise<number> {
  const probe = createServer();
  await new Promise<void>((resolve) => probe.listen(0, '127.0.0.1', resolve));
  const address = probe.address();
  await new Promise((resolve) => probe.close(resolve));
  if (address === null || typeof address === 'string') throw new Error('no port');
  return address.port;
}

/**
 * Serves `directory`; keeps its own files in `scratch`. `isElsewhere`: what it computes shall not be felt on this machine, as
 * if it were another one; it gets only processor time that nobody else wants.
 */
export async function startWebServer(
  directory: string,
  scratch: string,
  isElsewhere = false,
): Promise<WebServer> {
  await mkdir(scratch, { recursive: true });
  const port = await freePort();
  const log = join(scratch, 'access.log');
  const config = join(scratch, 'nginx.conf');
  await writeFile(log, '');
  await writeFile(
    config,
    `daemon off; worker_processes 1; pid ${scratch}/pid; error_log ${scratch}/error.log; user root;
events { worker_connections 64; }
http {
  sendfile on; tcp_nopush on; keepalive_requests 100000; default_type application/octet-stream;
  log_format bytes '$bytes_sent'; access_log ${log} bytes;
  client_body_temp_path ${scratch}/body; proxy_temp_path ${scratch}/proxy; fastcgi_temp_path ${scratch}/fastcgi;
  uwsgi_temp_path ${scratch}/uwsgi; scgi_temp_path ${scratch}/scgi;
  server { listen 127.0.0.1:${port}; root ${directory}; }
}
`,
  );
  const command = ['nginx', '-c', config];
  const [program = '', ...rest] = isElsewhere ? ['chrt', '--idle', '0', ...command] : command;
  const child = spawn(program, rest, { stdio: 'ignore', detached: isElsewhere });
  if (isElsewhere && child.pid !== undefined) writeFileSync(`/proc/${child.pid}/autogroup`, '19');
  const url = `http://127.0.0.1:${port}`;
  for (let tries = 0; ; tries += 1) {
    const answer = await fetch(url).catch(() => null);
    await answer?.body?.cancel();
    if (answer !== null) break;
    if (tries >= START_TRIES || child.exitCode !== null) throw new Error('nginx does not start');
    await sleep(50);
  }
  let seen = (await readFile(log)).byteLength;
  return {
    url,
    async sent() {
      await sleep(LOG_MS);
      const all = await readFile(log, 'latin1');
      const lines = all.slice(seen).split('\n').filter(Boolean);
      seen = all.length;
      return { bytes: lines.reduce((sum, line) => sum + Number(line), 0), requests: lines.length };
    },
    async close() {
      const ended = new Promise((resolve) => child.once('close', resolve));
      child.kill('SIGTERM');
      await ended;
    },
  };
}
