// The service of the demo: a small web server that runs on the Node it was shipped with.
// `version.json` beside it says which version this is, and how it behaves.
import { readFileSync } from 'node:fs';
import { createServer } from 'node:http';

const { version, healthyForMs } = JSON.parse(readFileSync(new URL('version.json', import.meta.url), 'utf8'));
const startedAt = Date.now();

const server = createServer((request, response) => {
  const sick = healthyForMs !== null && Date.now() - startedAt > healthyForMs;
  const status = request.url === '/healthz' && sick ? 503 : 200;
  const body = `${version}\n`;
  response.writeHead(status, { 'content-type': 'text/plain', 'content-length': body.length, connection: 'close' });
  response.end(body);
});
server.listen(Number(process.env.PORT), '127.0.0.1');
process.once('SIGTERM', () => server.close(() => process.exit(0)));
