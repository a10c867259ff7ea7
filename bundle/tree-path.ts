/**
 * Which paths may stand in a tree (docs/specs/bundle-format.md, section 4.1). A path that passes names a place inside the
 * slot, under every file system and for every person who reads it.
 */
import { Problem } from '#/protocol/errors.ts';

/** Of a whole path, in bytes of UTF-8. */
export const PATH_MAX_BYTES = 1024;
/** Of one component: what ext4, xfs and btrfs hold. */
export const PATH_COMPONENT_MAX_BYTES = 255;
export const PATH_MAX_DEPTH = 64;
/** Of a symbolic link's text. */
export const LINK_MAX_BYTES = 1024;

/** Plain ASCII without control characters and backslash: nearly every path, decided by one match. */
const plain = /^[ -[\]-~]+$/u;
/**
 * A path that is fine at first sight: components of plain characters without backslash that neither begin with a space nor
 * end in a space or dot. Short enough, it needs no closer look; nearly every path of a tree is like this.
 */
const harmless =
  /^(?:[!--0-[\]-~]|[!-.0-[\]-~][ -.0-[\]-~]*[!--0-[\]-~])(?:\/(?:[!--0-[\]-~]|[!-.0-[\]-~][ -.0-[\]-~]*[!--0-[\]-~]))*$/;
/** So short a path has at most 64 components. */
const HARMLESS_MAX_LENGTH = 2 * PATH_MAX_DEPTH - 1;
/** systemd writes `-` in unit names as `\x2d`: the one form in which a backslash is harmless and common. */
const systemdEscape = /\\x[0-9a-f]{2}/gu;
/** Control, format (zero width, direction), private, unassigned, separators other than the plain space. */
const invisible = /[\p{Cc}\p{Cf}\p{Co}\p{Cn}\p{Cs}\p{Zl}\p{Zp}]|(?! )\p{Zs}/u;
/** Look like `/` or `.` or `\` but have no compatibility form that says so. */
const lookAlike = new RegExp(
  [
    '[\\u2044\\u2215\\u29F5\\u29F8\\u29F9\\u2571\\u2572]',
    // Dots: Arabic and Syriac full stops, Lisu, Vai, Kharoshthi, and digits that are a dot.
    '[\\u06D4\\u0701\\u0702\\u0660\\u06F0\\uA4F8\\uA60E\\u{10A50}]',
  ].join('|'),
  'u',
);

/**
 * Throws E_PATH unless `path` is a relative path of plain components. Needs no listing: duplicates, parents and
 * links are checked by the reader of the listing.
 */
export function checkTreePath(path: string): void {
  const reason = pathFault(path);
  if (reason !== null) throw new Problem('E_PATH', `path ${quote(path)} ${reason}`);
}

/** Why a path is refused, or null. */
export function pathFault(path: string): string | null {
  if (path.length <= HARMLESS_MAX_LENGTH && harmless.test(path)) return null;
  if (path.length === 0) return 'is empty';
  if (Buffer.byteLength(path) > PATH_MAX_BYTES) return `is longer than ${PATH_MAX_BYTES} bytes`;
  const fault = textFault(path);
  if (fault !== null) return fault;
  if (path.startsWith('/')) return 'is absolute';
  const components = path.split('/');
  if (components.length > PATH_MAX_DEPTH) return `is deeper than ${PATH_MAX_DEPTH}`;
  for (const component of components) {
    if (component === '') return 'has an empty component';
    if (component === '.' || component === '..') return `has a component ${component}`;
    if (component.endsWith('.') || component.endsWith(' '))
      return 'has a component that ends in a dot or space';
    if (component.startsWith(' ')) return 'has a component that starts with a space';
    if (Buffer.byteLength(component) > PATH_COMPONENT_MAX_BYTES) {
      return `has a component longer than ${PATH_COMPONENT_MAX_BYTES} bytes`;
    }
  }
  return null;
}

/** Faults of the characters alone. */
function textFault(text: string): string | null {
  if (plain.test(text)) return null;
  if (text.replaceAll(systemdEscape, '').includes('\\')) return 'has a backslash';
  if (invisible.test(text)) return 'has a control, invisible or unassigned character';
  if (text.normalize('NFC') !== text) return 'is not in Unicode normal form C';
  if (lookAlike.test(text)) return 'has a character that looks like a separator or a dot';
  for (const character of text) {
    if (character > '~' && /[./\\]/u.test(character.normalize('NFKC'))) {
      return 'has a character that looks like a separator or a dot';
    }
  }
  return null;
}

/** The key under which two paths collide on a file system that ignores case. */
export function collisionKey(path: string): string {
  return plain.test(path) ? path.toUpperCase() : path.toLowerCase().toUpperCase().normalize('NFC');
}

/** Throws E_PATH unless the text of a symbolic link can be stored at all; where it leads is `checkLinks`' matter. */
export function checkLinkText(path: string, target: string): void {
  const size = Buffer.byteLength(target);
  if (size === 0 || size > LINK_MAX_BYTES) {
    throw new Problem('E_PATH', `link ${quote(path)} has a target of ${size} bytes`);
  }
  const fault = textFault(target);
  if (fault !== null) throw new Problem('E_PATH', `target of link ${quote(path)} ${fault}`);
}

/** A path for a message: escaped and short. */
export function quote(path: string): string {
  const short = path.length > 120 ? `${path.slice(0, 120)}…` : path;
  return JSON.stringify(short);
}
