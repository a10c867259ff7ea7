/** What a disk holds: a tree of numbered nodes. Images are values; a changed image is a new one. */

export type Inode = number;
export const ROOT: Inode = 1;

export type Node =
  | { readonly kind: 'file'; readonly bytes: Uint8Array }
  | { readonly kind: 'link'; readonly target: string }
  | { readonly kind: 'directory' };

export interface Image {
  readonly nodes: ReadonlyMap<Inode, Node>;
  /** Entries of each directory. */
  readonly entries: ReadonlyMap<Inode, ReadonlyMap<string, Inode>>;
}

/** A disk with an empty root directory. */
export function emptyImage(): Image {
  return {
    nodes: new Map<Inode, Node>([[ROOT, { kind: 'directory' }]]),
    entries: new Map([[ROOT, new Map<string, Inode>()]]),
  };
}

/** All paths with what they hold, sorted: files as latin1 text, links as `-> target`, directories as `/`. */
export function listImage(image: Image): ReadonlyMap<string, string> {
  const found = new Map<string, string>();
  const walk = (directory: Inode, path: string): void => {
    const entries = [...(image.entries.get(directory) ?? [])];
    for (const [name, inode] of entries.sort(([a], [b]) => (a < b ? -1 : 1))) {
      const node = image.nodes.get(inode);
      const at = `${path}/${name}`;
      if (node === undefined) throw new Error(`entry ${at} without a node`);
      if (node.kind === 'file') found.set(at, Buffer.from(node.bytes).toString('latin1'));
      if (node.kind === 'link') found.set(at, `-> ${node.target}`);
      if (node.kind === 'directory') {
        found.set(at, '/');
        walk(inode, at);
      }
    }
  };
  walk(ROOT, '');
  return found;
}

/** One string per distinct visible content: two images with the same key look the same to every program. */
export function imageKey(image: Image): string {
  const parts: string[] = [];
  for (const [path, content] of listImage(image)) parts.push(path, content);
  return parts.join('\0');
}
