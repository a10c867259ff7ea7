/** Serves the files of a directory over HTTP with Range, in a process of its own. Prints its port. */
import { createReadStream, statSync } from 'node:fs';
import { createServer } from 'node:http';
import { basename, join } from 'node:path';

const directory = process.argv[2] ?? '.';
const server = createServer((request, response) => {
  const path = join(directory, basename(request.url ?? ''));
  const size = statSync(path, { throwIfNoEntry: false })?.size;
  if (size === undefined) {
    response.writeHead(404).end();
    return;
  }
  const match = /^bytes=(\d+)-(\d+)$/.exec(request.headers.range ?? '');
  const [start, end] = match === null ? [0, size - 1] : [Number(match[1]), Number(match[2])];
  response.writeHead(match === null ? 200 : 206, {
    etag: `"${size}"`,
    'content-length': end - start + 1,
    ...(match === null ? {} : { 'content-range': `bytes ${start}-${end}/${size}` }),
  });
  createReadStream(path, { start, end, highWaterMark: 256 * 1024 }).pipe(response);
});
server.listen(0, '127.0.0.1', () => {
  const address = server.address();
  if (address !== null && typeof address === 'object') process.stdout.write(`${address.port}\n`);
});
