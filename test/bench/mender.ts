/** mender-client from Debian, polling: the peer of the idle agent. A stand-in for its server, its boot environment and its identity. */
import { existsSync } from 'node:fs';
import { chmod, mkdir, writeFile } from 'node:fs/promises';
import { createServer, type Server } from 'node:http';
import { join } from 'node:path';

/** What mender 3.4 asks for before it polls: the artifact that it believes to run. */
const ARTIFACT_INFO = '/etc/mender/artifact_info';
const IDENTITY = '/usr/share/mender/identity';

export interface MenderSetup {
  readonly argv: readonly string[];
  /** In the last minute, or since the start if that is shorter. */
  readonly polls: () => Promise<number>;
  readonly close: () => void;
}

/** Writes what the daemon needs into `directory`; `pollS`: seconds between two polls. */
export async function setUpMender(directory: string, pollS: number): Promise<MenderSetup> {
  const bin = join(directory, 'bin');
  const identity = join(directory, 'identity');
  for (const path of [bin, identity, join(directory, 'data')])
    await mkdir(path, { recursive: true });
  const script = async (path: string, text: string): Promise<void> => {
    await writeFile(path, `#!/bin/sh\n${text}\n`);
    await chmod(path, 0o755);
  };
  const environment = [
    'mender_boot_part=a',
    'mender_boot_part_hex=a',
    'upgrade_available=0',
    'bootcount=0',
  ];
  await writeFile(join(directory, 'env'), `${environment.join('\n')}\n`);
  const env = join(directory, 'env');
  await script(
    join(bin, 'fw_printenv'),
    `[ $# = 0 ] && exec cat ${env}; for n in "$@"; do grep "^$n=" ${env} || exit 1; done`,
  );
  await script(join(bin, 'fw_setenv'), 'exit 0');
  await script(join(identity, 'mender-device-identity'), 'echo mac=02:00:00:00:00:01');
  await writeFile(join(directory, 'device_type'), 'device_type=bench\n');
  if (!existsSync(ARTIFACT_INFO)) await writeFile(ARTIFACT_INFO, 'artifact_name=v1\n');
  const polls: number[] = [];
  const server = startServer(() => {
    polls.push(performance.now());
  });
  const port = await new Promise<number>((resolve) => {
    server.listen(0, '127.0.0.1', () => {
      const address = server.address();
      resolve(address !== null && typeof address === 'object' ? address.port : 0);
    });
  });
  const config = {
    RootfsPartA: '/dev/null',
    RootfsPartB: '/dev/zero',
    ServerURL: `http://127.0.0.1:${port}`,
    UpdatePollIntervalSeconds: pollS,
    InventoryPollIntervalSeconds: 3600,
    RetryPollIntervalSeconds: 30,
    DeviceTypeFile: join(directory, 'device_type'),
    DBus: { Enabled: false },
  };
  await writeFile(join(directory, 'mender.conf'), JSON.stringify(config));
  const run = `mount --bind ${identity} ${IDENTITY}; PATH=${bin}:$PATH exec mender -c ${directory}/mender.conf -d ${directory}/data --no-syslog daemon`;
  return {
    argv: ['unshare', '-m', 'sh', '-c', run],
    polls: async () => polls.filter((at) => at > performance.now() - 60_000).length,
    close: () => server.close(),
  };
}

/** Enough of its API for a daemon that only polls: a token, and no deployment. */
function startServer(onPoll: () => void): Server {
  const token = ['{"alg":"none"}', '{"sub":"bench","exp":4102444800}', 'x']
    .map((part) => Buffer.from(part).toString('base64url'))
    .join('.');
  return createServer((request, response) => {
    request.resume().on('end', () => {
      const url = request.url ?? '';
      const isPoll = url.includes('deployments/next');
      if (isPoll) onPoll();
      const body = url.includes('auth_requests') ? token : '';
      response.writeHead(isPoll ? 204 : 200, { 'content-length': body.length });
      response.end(body);
    });
  });
}
