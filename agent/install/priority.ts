/** How the install child is started so that the host's real work does not feel it. Pure. */

export interface InstallPriority {
  /** `idle`: runs only when nobody else wants to. `low`: gives way. `normal`: as everybody. */
  readonly cpu: 'idle' | 'low' | 'normal';
  /** The same for disks whose scheduler knows priorities (bfq, mq-deadline). */
  readonly io: 'idle' | 'low' | 'normal';
}

/** Programs of coreutils and util-linux. They replace themselves, so the pid and the channel stay. */
const PROGRAMS = {
  chrt: '/usr/bin/chrt',
  nice: '/usr/bin/nice',
  ionice: '/usr/bin/ionice',
} as const;
const NICE = '10';

/**
 * The nice value of the child's own session. Where the kernel groups processes by session (sched(7), "autogroup"; Debian's
 * does), a nice value counts only inside of one, and services are sessions of their own.
 */
export const sessionNice = { idle: 19, low: 10, normal: 0 } as const;

/** The program and the arguments before `command`; a program that the host lacks is left out. */
export function withPriority(
  command: readonly string[],
  priority: InstallPriority,
  exists: (path: string) => boolean,
): readonly string[] {
  const cpu = {
    idle: [PROGRAMS.chrt, '--idle', '0'],
    low: [PROGRAMS.nice, '-n', NICE],
    normal: [],
  }[priority.cpu];
  const io = {
    idle: [PROGRAMS.ionice, '-c', '3'],
    low: [PROGRAMS.ionice, '-c', '2', '-n', '7'],
    normal: [],
  }[priority.io];
  const usable = [cpu, io].filter(([program]) => program === undefined || exists(program));
  return [...usable.flat(), ...command];
}
