/** What went wrong, in the four parts that every message of this project has. */
export interface Problem {
  /** Where it was seen: a file, a tensor, an option. */
  readonly where: string;
  readonly expected: string;
  readonly found: string;
  /** What the user can do about it, as a full sentence. */
  readonly fix: string;
}

/** One line for a person: `where: expected …, found …. Fix.` */
export function describe({ where, expected, found, fix }: Problem): string {
  return `${where}: expected ${expected}, found ${found}. ${fix}`;
}

const REASONS: Readonly<Record<string, string>> = {
  ENOENT: 'no such file',
  EISDIR: 'a folder',
  ENOSPC: 'a full disk',
  EDQUOT: 'a full quota',
  EFBIG: 'a limit of the file size',
  EROFS: 'a file system that is read only',
};

/**
 * What an error of the system says was found, in the words of this project; what there are none for, in its own.
 * @param denied what it is called when a permission is missing
 * @param words for codes that mean something else where it happened
 */
export function reasonOf(error: unknown, denied: string, words: Readonly<Record<string, string>> = {}): string {
  const { code = '', message } = error as NodeJS.ErrnoException;
  return words[code] ?? (code === 'EACCES' || code === 'EPERM' ? denied : (REASONS[code] ?? message));
}

/**
 * A mistake that a user or a file made. The CLI prints its message without a stack trace and exits with 1.
 * `problems` holds every problem found, not only the first.
 */
export class OlmoHybridError extends Error {
  readonly code: string;
  readonly problems: readonly Problem[];

  constructor(code: string, problems: Problem | readonly Problem[], options?: ErrorOptions) {
    const all: readonly Problem[] = Array.isArray(problems) ? problems : [problems as Problem];
    super(all.map(describe).join('\n'), options);
    this.code = code;
    this.problems = all;
    this.name = new.target.name;
  }
}

/** config.json is missing, malformed, or asks for something that this engine does not compute. */
export class ConfigError extends OlmoHybridError {
  constructor(problems: Problem | readonly Problem[], options?: ErrorOptions) {
    super('CONFIG', problems, options);
  }
}

/** A safetensors file or its index is damaged, or its tensors do not fit the config. */
export class CheckpointError extends OlmoHybridError {
  constructor(problems: Problem | readonly Problem[], options?: ErrorOptions) {
    super('CHECKPOINT', problems, options);
  }
}

/** tokenizer.json or the chat template is missing, damaged, or cannot take the text. */
export class TokenizerError extends OlmoHybridError {
  constructor(problems: Problem | readonly Problem[], options?: ErrorOptions) {
    super('TOKENIZER', problems, options);
  }
}

/** An argument of a public call is out of range: a token id, a length, an option. */
export class ArgumentError extends OlmoHybridError {
  constructor(problems: Problem | readonly Problem[], options?: ErrorOptions) {
    super('ARGUMENT', problems, options);
  }
}

/** The machine or the planned memory cannot hold what was asked for. */
export class RuntimeLimitError extends OlmoHybridError {
  constructor(problems: Problem | readonly Problem[], options?: ErrorOptions) {
    super('RUNTIME_LIMIT', problems, options);
  }
}

/** A model's repository cannot be had from the Hub or from the cache: a name, a request, a digest, a disk. */
export class HubError extends OlmoHybridError {
  constructor(problems: Problem | readonly Problem[], options?: ErrorOptions) {
    super('HUB', problems, options);
  }
}

/** The file of a saved conversation is damaged, of another version, or of another model. */
export class SessionError extends OlmoHybridError {
  constructor(problems: Problem | readonly Problem[], options?: ErrorOptions) {
    super('SESSION', problems, options);
  }
}
