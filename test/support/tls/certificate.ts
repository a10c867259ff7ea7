/** Certificates for TLS tests: a small DER writer over node:crypto, so that no tool has to be there and none can expire. */
import {
  createPrivateKey,
  generateKeyPairSync,
  type KeyObject,
  randomInt,
  sign,
} from 'node:crypto';

export interface Certificate {
  readonly certPem: string;
  readonly keyPem: string;
}

const bytes = (...parts: readonly (Buffer | number)[]): Buffer =>
  Buffer.concat(parts.map((part) => (typeof part === 'number' ? Buffer.from([part]) : part)));
function der(tag: number, ...content: readonly Buffer[]): Buffer {
  const body = Buffer.concat(content);
  if (body.length < 128) return bytes(tag, body.length, body);
  const length =
    body.length < 256 ? bytes(0x81, body.length) : bytes(0x82, body.length >> 8, body.length & 255);
  return bytes(tag, length, body);
}
const sequence = (...content: readonly Buffer[]): Buffer => der(0x30, ...content);
const oid = (hex: string): Buffer => der(0x06, Buffer.from(hex, 'hex'));
const integer = (value: number): Buffer => der(0x02, bytes(value));
const ecdsaSha256 = sequence(oid('2a8648ce3d040302'));
const commonName = (name: string): Buffer =>
  sequence(der(0x31, sequence(oid('550403'), der(0x0c, Buffer.from(name)))));
const time = (date: Date): Buffer =>
  der(0x18, Buffer.from(`${date.toISOString().replaceAll(/[-:T]|\.\d+/g, '')}`));
const extension = (id: string, isCritical: boolean, value: Buffer): Buffer =>
  sequence(oid(id), ...(isCritical ? [der(0x01, bytes(0xff))] : []), der(0x04, value));

export interface CertificateRequest {
  readonly name: string;
  readonly isAuthority?: boolean;
  /** IP address for which it is good; none: for `name` as a DNS name. */
  readonly ip?: string;
  readonly notAfter?: Date;
  /** Itself when left out. */
  readonly issuer?: Certificate & { readonly name: string };
}

/** A certificate with a new P-256 key. */
export function makeCertificate(
  request: CertificateRequest,
): Certificate & { readonly name: string } {
  const { privateKey, publicKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
  const { name, issuer } = request;
  const altName =
    request.ip === undefined
      ? der(0x82, Buffer.from(name))
      : der(0x87, Buffer.from(request.ip.split('.').map(Number)));
  const extensions = [
    ...(request.isAuthority === true
      ? [
          extension('551d13', true, sequence(der(0x01, bytes(0xff)))),
          extension('551d0f', true, der(0x03, bytes(2, 0x04))),
        ]
      : [extension('551d11', false, sequence(altName))]),
  ];
  const body = sequence(
    der(0xa0, integer(2)),
    integer(randomInt(1, 100)),
    ecdsaSha256,
    commonName(issuer?.name ?? name),
    sequence(
      time(new Date(Date.now() - 86_400_000 * 30)),
      time(request.notAfter ?? new Date(Date.now() + 86_400_000)),
    ),
    commonName(name),
    publicKey.export({ type: 'spki', format: 'der' }),
    der(0xa3, sequence(...extensions)),
  );
  const signer: KeyObject = issuer === undefined ? privateKey : createPrivateKey(issuer.keyPem);
  const signature = sign('sha256', body, signer);
  const certificate = sequence(body, ecdsaSha256, der(0x03, bytes(0, signature)));
  // No line may be empty: where the length is a multiple of 64, a line end after each 64 would make one.
  const base64 = certificate.toString('base64').replaceAll(/.{64}/g, '$&\n').trimEnd();
  return {
    name,
    certPem: `-----BEGIN CERTIFICATE-----\n${base64}\n-----END CERTIFICATE-----\n`,
    keyPem: privateKey.export({ type: 'pkcs8', format: 'pem' }).toString(),
  };
}
