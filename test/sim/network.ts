/** The simulated network: messages are late, lost, doubled, out of order, or cut off with whole hosts. */
import type { TransportAnswer, TransportRequest } from '#/agent/adapters/transport.ts';
import { Problem } from '#/protocol/errors.ts';
import { seeded, type SimRandom } from './random.ts';
import type { SimTime } from './time.ts';

/** What the line of one host is like. Shares in [0, 1]. */
export interface Weather {
  readonly loss: number;
  readonly twice: number;
  /** Longest delay of one direction; a message is late by any part of it, so that later ones overtake. */
  readonly delayMs: number;
  readonly isCut: boolean;
}

export const fineWeather: Weather = { loss: 0, twice: 0, delayMs: 50, isCut: false };
/** A second copy arrives up to so much later. */
const ECHO_MS = 90_000;
const TIMEOUT_MS = 20_000;

export interface Network {
  /** One exchange of a host with control. `isAlive`: the process that asked still runs. */
  exchange(
    host: number,
    request: TransportRequest,
    isAlive: () => boolean,
  ): Promise<TransportAnswer>;
  set(host: number, weather: Weather): void;
  readonly counts: { messages: number; lost: number; doubled: number };
}

/** `serve` gives the answer of control, or null when nobody answers. */
export function simNetwork(
  seed: number,
  time: SimTime,
  serve: (request: TransportRequest) => Promise<TransportAnswer | null>,
): Network {
  const weathers = new Map<number, Weather>();
  const streams = new Map<number, SimRandom>();
  const counts = { messages: 0, lost: 0, doubled: 0 };
  const streamOf = (host: number): SimRandom => {
    const found = streams.get(host) ?? seeded(seed, 'network', host);
    streams.set(host, found);
    return found;
  };
  return {
    counts,
    set: (host, weather) => void weathers.set(host, weather),
    exchange(host, request, isAlive) {
      const random = streamOf(host);
      const weather = weathers.get(host) ?? fineWeather;
      // Drawn whatever becomes of them, so that the weather changes no later draw.
      const [lostThere, lostBack, twice] = [random.unit(), random.unit(), random.unit()];
      const [there, back, echo] = [random.unit(), random.unit(), random.unit()];
      counts.messages += 2;
      return new Promise((resolve, reject) => {
        let isOver = false;
        const end = (work: () => void): void => {
          if (isOver || !isAlive()) return;
          isOver = true;
          forget();
          work();
        };
        const fail = (code: 'E_TIMEOUT' | 'E_NETWORK', what: string): void =>
          end(() => reject(new Problem(code, `${request.method} ${request.url}: ${what}`)));
        const forget = time.at(time.nowMs() + TIMEOUT_MS, () => fail('E_TIMEOUT', 'no answer'));
        const cut = (): boolean => (weathers.get(host) ?? fineWeather).isCut;
        const answered = (answer: TransportAnswer | null): void => {
          if (answer === null) {
            fail('E_NETWORK', 'connection refused');
            return;
          }
          if (lostBack < weather.loss) {
            counts.lost += 1;
            return;
          }
          time.at(time.nowMs() + 1 + back * weather.delayMs, () => {
            if (!cut()) end(() => resolve(answer));
          });
        };
        const deliver = (isFirst: boolean): void => {
          if (cut()) return;
          void serve(request).then((answer) => {
            if (isFirst) answered(answer);
          });
        };
        if (lostThere < weather.loss) counts.lost += 1;
        else time.at(time.nowMs() + 1 + there * weather.delayMs, () => deliver(true));
        if (twice < weather.twice) {
          counts.doubled += 1;
          time.at(time.nowMs() + 1 + echo * ECHO_MS, () => deliver(false));
        }
      });
    },
  };
}
