/**
 * Zeros on a block device, which keeps its old bytes where an image has a hole. Long runs are handed to the kernel
 * (BLKZEROOUT, which a disk may do without any transfer and which is not a discard: what is read afterwards is zeros);
 * short ones, and all where that does not work, are written. Either way the read-back looks at every byte (P4).
 */
import { spawn } from 'node:child_process';

/** Below this, writing zeros costs less than a process. */
const LONG_BYTES = 4 * 1024 * 1024;
const ALIGNED_BYTES = 4096;
/** One call; a slow disk without an offload needs a while for its longest run. */
const TIMEOUT_MS = 10 * 60_000;

/** True when the kernel has put zeros there; false when they have to be written. `descriptor` is the open device. */
export async function zeroOut(
  descriptor: number,
  offset: number,
  sizeBytes: number,
): Promise<boolean> {
  if (sizeBytes < LONG_BYTES || offset % ALIGNED_BYTES !== 0 || sizeBytes % ALIGNED_BYTES !== 0) {
    return false;
  }
  const range = ['--offset', String(offset), '--length', String(sizeBytes)];
  // The device that is open here, whatever its name means by now. It is ours alone already, hence --force.
  const argv = ['--zeroout', '--force', ...range, '/proc/self/fd/3'];
  return await new Promise((resolve) => {
    const child = spawn('blkdiscard', argv, {
      stdio: ['ignore', 'ignore', 'ignore', descriptor],
      timeout: TIMEOUT_MS,
      killSignal: 'SIGKILL',
    });
    child.on('error', () => resolve(false));
    child.on('close', (code) => resolve(code === 0));
  });
}
