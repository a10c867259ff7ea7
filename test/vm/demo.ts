/**
 * `npm run demo:vm [-- --loader systemd-boot]`: a real virtual machine under software emulation, a good update and a bad one, with its
 * console. Needs root, `npm run package`, and the packages of packaging/install-test-tools.sh.
 */
import { parseArgs } from 'node:util';
import { type Loader, loaders } from '#/control/cli/image/layout.ts';
import { badVersions, firstVersion, secondVersion } from './versions.ts';
import { World } from './world.ts';

const { values: flags } = parseArgs({
  options: {
    loader: { type: 'string', default: 'grub' },
    patience: { type: 'string', default: '1' },
  },
});
const loader: Loader | undefined = loaders.find((name) => name === flags.loader);
if (loader === undefined) throw new Error(`--loader is one of ${loaders.join(', ')}`);
/** Of the console: what tells a boot, a switch or a failure; the rest of a boot is long. */
const SHOWN =
  /Switchback|switchback|login:|Linux version|panic|reboot:|Started|Reached target|watchdog/;
const LINE_CHARS = 150;
const UPDATE_SECONDS = 900;

const began = performance.now();
const clock = (): string => {
  const seconds = Math.floor((performance.now() - began) / 1000);
  return `${Math.floor(seconds / 60)}:${String(seconds % 60).padStart(2, '0')}`;
};
const say = (text: string): void => void process.stdout.write(`[${clock()}] ${text}\n`);
const act = (text: string): void => void process.stdout.write(`\n[${clock()}] == ${text}\n`);

act('1. A disk: Debian with two slots, by `switchback image build`');
const world = await World.create({
  loader,
  firmware: loader === 'grub' ? 'bios' : 'efi',
  processors: 2,
  losesWrites: false,
  patience: Number(flags.patience),
  say,
  onLine: (line) => {
    if (SHOWN.test(line)) process.stdout.write(`        | ${printable(line)}\n`);
  },
});
const stop = (): void => void world.close().finally(() => process.exit(1));
process.once('SIGINT', stop);
process.once('SIGTERM', stop);
const bad = badVersions.find(({ name }) => name === 'panic');
if (bad === undefined) throw new Error('there is no version whose kernel panics');
// Made while the machine does other things.
world.images.prepare([secondVersion, bad]);
try {
  act('2. It boots, joins the fleet with the word that the hypervisor hands over, and runs 1.0.0');
  await world.firstBoot();
  say(`host ${world.id} rests on ${firstVersion.version}; nothing was downloaded`);

  act('3. A good update: into the other slot, read back, tried, healthy, committed');
  await world.images.release(secondVersion);
  await world.pin(secondVersion);
  await world.untilRests(secondVersion, UPDATE_SECONDS);
  say(`the host runs ${secondVersion.version} for good; ${firstVersion.version} stays in its slot`);

  act('4. A bad update: its kernel panics');
  await world.images.release(bad);
  await world.pin(bad);
  const told = await world.untilTakenBack(bad, secondVersion.version, UPDATE_SECONDS);
  say(`the loader went back by itself; control was told: ${told.code}, ${told.words}`);
  say(`${bad.version} is on the deny-list of this host and is not tried again`);
} finally {
  await world.close();
}
say('done');

function printable(line: string): string {
  // eslint-disable-next-line no-control-regex -- escape sequences of the console
  return line.replaceAll(/\u001b\[[0-9;?]*[A-Za-z]|[^\x20-\x7e]/g, '').slice(0, LINE_CHARS);
}
