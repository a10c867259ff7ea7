/** Whether a version may be installed on a host, decided before anything is downloaded. */
import type { Manifest } from '#/bundle/manifest.ts';
import { Problem } from '#/protocol/errors.ts';

export interface HostTraits {
  readonly class: string;
  /** As Debian names it. */
  readonly arch: 'amd64' | 'arm64';
  /** `agentNumber` of the running agent. */
  readonly agent: number;
  /** Release of the version in the live slot; null when nothing was installed yet. */
  readonly runningRelease: number | null;
}

/** `1.2.3` as `major*1e6 + minor*1e3 + patch`, the form of `minAgent`. Throws E_USAGE for other text. */
export function agentNumber(version: string): number {
  const parts = /^(\d{1,6})\.(\d{1,3})\.(\d{1,3})(?:[-+].*)?$/.exec(version);
  if (parts === null)
    throw new Problem('E_USAGE', `agent version ${version} is not of the form 1.2.3`);
  return Number(parts[1]) * 1_000_000 + Number(parts[2]) * 1000 + Number(parts[3]);
}

/** Throws E_CLASS, E_AGENT_TOO_OLD or E_STEPPING_STONE, in this order, unless the host may install the version. */
export function checkCompatibility(manifest: Manifest, host: HostTraits): void {
  if (manifest.class !== host.class) {
    throw new Problem(
      'E_CLASS',
      `artifact is for class ${manifest.class}, this host is of class ${host.class}`,
    );
  }
  if (manifest.arch !== 'any' && manifest.arch !== host.arch) {
    throw new Problem('E_CLASS', `artifact is for ${manifest.arch}, this host is ${host.arch}`);
  }
  if (host.agent < manifest.minAgent) {
    throw new Problem(
      'E_AGENT_TOO_OLD',
      `artifact needs agent ${manifest.minAgent}, this is ${host.agent}`,
      {
        minAgent: manifest.minAgent,
        agent: host.agent,
      },
    );
  }
  // A host without any version has nothing that a missed step could have left behind.
  if (host.runningRelease !== null && host.runningRelease < manifest.minFrom) {
    throw new Problem(
      'E_STEPPING_STONE',
      `artifact can be installed from release ${manifest.minFrom}, this host runs ${host.runningRelease}`,
      { minFrom: manifest.minFrom, running: host.runningRelease },
    );
  }
}
