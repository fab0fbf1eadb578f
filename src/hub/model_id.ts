import { HubError } from '../errors.ts';

/** A model on the Hub. */
export interface ModelId {
  /** `org/name`. */
  readonly repository: string;
  /** A branch, tag or commit; intermediate checkpoints are branches such as `stage1-step10000`. */
  readonly revision: string;
}

export const DEFAULT_REVISION = 'main';

// HF: huggingface_hub.utils.validate_repo_id.
const PART = /^(?![.-])[A-Za-z0-9._-]{1,96}(?<![.-])$/;
const REVISION = /^(?!\/)[A-Za-z0-9._/-]{1,255}(?<!\/)$/;
/** What no revision has, by `git check-ref-format`: two dots or slashes side by side, a part that begins with a dot. */
const NO_REVISION = /\.\.|\/\/|(^|\/)\./;

/**
 * Reads `org/name` or `org/name@revision`.
 * @returns null for what is not of this form, and so is a path
 */
export function parseModelId(text: string): ModelId | null {
  const [id = '', ...rest] = text.split('@');
  const parts = id.split('/');
  const named = parts.length === 2 && parts.every((part) => PART.test(part)) && !/--|\.\./.test(id) && !id.endsWith('.git');
  if (!named || rest.length > 1) return null;
  const revision = rest[0] ?? DEFAULT_REVISION;
  return REVISION.test(revision) && !NO_REVISION.test(revision) ? { repository: id, revision } : null;
}

/**
 * The same where nothing else will do.
 * @throws {HubError} when it is not of this form
 */
export function requireModelId(text: string): ModelId {
  const id = parseModelId(text);
  if (id) return id;
  const fix = 'Write it as on huggingface.co, such as allenai/Olmo-Hybrid-7B.';
  throw new HubError({ where: 'model', expected: 'org/name or org/name@revision', found: JSON.stringify(text), fix });
}

/** As it is written: the default revision is left out. */
export function formatModelId({ repository, revision }: ModelId): string {
  return revision === DEFAULT_REVISION ? repository : `${repository}@${revision}`;
}

/** Whether a revision is a commit, which always means the same files. */
export function isCommit(revision: string): boolean {
  return /^[0-9a-f]{40}$/.test(revision);
}
