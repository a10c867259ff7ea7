/** How a version gets into the fleet. */
import { MANIFEST_PAYLOAD_TYPE, signEnvelope } from '#/bundle/dsse.ts';
import { CONTROL_URL, type SimControl } from './control.ts';
import type { SimVersion } from './versions.ts';

/** Lists a release at control; doing it again changes nothing. */
export async function admit(control: SimControl, version: SimVersion): Promise<void> {
  const envelope = signEnvelope(MANIFEST_PAYLOAD_TYPE, version.manifestBytes, [control.releaseKey]);
  const manifest = Buffer.from(version.manifestBytes).toString('base64');
  const sources = [`${CONTROL_URL}/artifacts/${version.artifactId}.bundle`];
  await control.operator.call('releaseReference', { body: { manifest, envelope, sources } });
}
