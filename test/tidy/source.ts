/** Reading source text without a compiler: which strings, comments and imports a TypeScript file has. */

export interface SourceFile {
  /** From the root of the repository, with `/`. */
  readonly path: string;
  readonly text: string;
}

export interface Breach {
  readonly path: string;
  readonly line: number;
  readonly what: string;
}

export interface Literal {
  readonly at: number;
  readonly value: string;
}

export interface Reading {
  /** The text with comments and the inside of strings blanked out; same length, same line breaks. */
  readonly code: string;
  readonly literals: readonly Literal[];
}

export interface Import {
  readonly line: number;
  readonly specifier: string;
  /** `import type` and `export type … from`: gone at run time. */
  readonly isType: boolean;
  /** `import()`: loaded when reached. */
  readonly isDynamic: boolean;
}

export function lineAt(text: string, at: number): number {
  let line = 1;
  for (let index = text.indexOf('\n'); index !== -1 && index < at; ) {
    line += 1;
    index = text.indexOf('\n', index + 1);
  }
  return line;
}

const startsRegex = /(?:^|[=(,:[!&|?{};+\-*%~^<>]|\b(?:return|typeof|case|in|of|yield|await))\s*$/;

/** One pass over the text: strings, templates, regular expressions and comments are told apart from code. */
export function read(text: string): Reading {
  const code = text.split('');
  const literals: Literal[] = [];
  const blank = (from: number, to: number): void => {
    for (let at = from; at < to; at += 1) if (code[at] !== '\n') code[at] = ' ';
  };
  /** Depth of braces inside each open `${`. */
  const templates: number[] = [];
  let at = 0;
  const template = (from: number): number => {
    let end = from;
    while (end < text.length) {
      if (text[end] === '\\') end += 2;
      else if (text[end] === '`') break;
      else if (text.startsWith('${', end)) {
        blank(from, end);
        templates.push(0);
        return end + 2;
      } else end += 1;
    }
    blank(from, end);
    return end + 1;
  };
  while (at < text.length) {
    const char = text[at];
    const pair = text.slice(at, at + 2);
    if (pair === '//') {
      const end = text.indexOf('\n', at);
      const stop = end === -1 ? text.length : end;
      blank(at, stop);
      at = stop;
    } else if (pair === '/*') {
      const end = text.indexOf('*/', at + 2);
      const stop = end === -1 ? text.length : end + 2;
      blank(at, stop);
      at = stop;
    } else if (char === "'" || char === '"') {
      let end = at + 1;
      while (end < text.length && text[end] !== char && text[end] !== '\n') {
        end += text[end] === '\\' ? 2 : 1;
      }
      literals.push({ at, value: text.slice(at + 1, end) });
      blank(at + 1, end);
      at = end + 1;
    } else if (char === '`') {
      const end = template(at + 1);
      if (text[end - 1] === '`') literals.push({ at, value: text.slice(at + 1, end - 1) });
      at = end;
    } else if (char === '{' && templates.length > 0) {
      templates.push((templates.pop() ?? 0) + 1);
      at += 1;
    } else if (char === '}' && templates.length > 0) {
      const depth = templates.pop() ?? 0;
      if (depth === 0) at = template(at + 1);
      else {
        templates.push(depth - 1);
        at += 1;
      }
    } else if (char === '/' && startsRegex.test(code.slice(Math.max(0, at - 40), at).join(''))) {
      const end = regexEnd(text, at);
      blank(at + 1, end);
      at = end + 1;
    } else at += 1;
  }
  return { code: code.join(''), literals };
}

function regexEnd(text: string, from: number): number {
  let inClass = false;
  for (let at = from + 1; at < text.length; at += 1) {
    const char = text[at];
    if (char === '\n') return from;
    if (char === '\\') at += 1;
    else if (char === '[') inClass = true;
    else if (char === ']') inClass = false;
    else if (char === '/' && !inClass) return at;
  }
  return from;
}

/** Every import and re-export of a file, static and dynamic. */
export function importsOf(file: SourceFile): readonly Import[] {
  const { code, literals } = read(file.text);
  const found: Import[] = [];
  for (const literal of literals) {
    const before = code.slice(Math.max(0, literal.at - 4000), literal.at);
    const line = lineAt(file.text, literal.at);
    const add = (isType: boolean, isDynamic: boolean): void => {
      found.push({ line, specifier: literal.value, isType, isDynamic });
    };
    if (/\bimport\s*\(\s*$/.test(before)) add(/\btypeof\s+import\s*\(\s*$/.test(before), true);
    else if (/(?<![.\w])require\s*\(\s*$/.test(before)) add(false, false);
    else if (/(?:^|\n)\s*import\s*$/.test(before)) add(false, false);
    else {
      const from = /(?:^|\n)[ \t]*(import|export)\b([^;'"`]*?)\bfrom\s*$/.exec(before);
      if (from !== null) add(/^\s*type\b/.test(from[2] ?? ''), false);
    }
  }
  return found;
}
