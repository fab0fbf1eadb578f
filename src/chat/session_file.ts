import { writeAtomically } from '../atomic_file.ts';
import { type ByteSource, openFile } from '../checkpoint/byte_source.ts';
import { quote } from '../checkpoint/problem_list.ts';
import { readSafetensors, readTensor, type SafetensorsFile } from '../checkpoint/safetensors.ts';
import { type TensorData, writeSafetensors } from '../checkpoint/safetensors_writer.ts';
import { ArgumentError, CheckpointError, SessionError } from '../errors.ts';
import type { FloatArray } from '../runtime/tensor.ts';
import type { Conversation, ConversationState } from './conversation.ts';
import { parseSession, type Session, sessionJson } from './session_json.ts';
import type { SessionModel } from './session_model.ts';

// A session is a safetensors file. Its metadata: `sha256` of the whole file, with zeros in the place of its 64 digits; `format`; `version`; `session`,
// a JSON object. Its tensors: `tokens`, the ids in the caches, and `layers.I.J`, the arrays of the state.

const FORMAT = 'olmo-hybrid session';
const VERSION = '1';
const NO_DIGEST = '0'.repeat(64);
/** What the header begins with: the digest follows, so its place is the same in every file. */
const BEGINNING = '{"__metadata__":{"sha256":"';
const DIGEST_AT = 8 + BEGINNING.length;
/** Permissions of a new file: what is said to a model is nobody else's business. */
const PRIVATE = 0o600;
const HASHED_AT_ONCE = 1 << 24; // bytes

const DAMAGED = 'The file is damaged: take a copy of it, or begin anew.';
const NO_SESSION = 'This is not a session file, or it is damaged: give the path of one that was saved.';

/** What loading a session brought back. */
export interface LoadedSession {
  readonly messages: number;
  /** Whether the state came with it, so that going on takes no time; otherwise all is run again with the next answer. */
  readonly state: boolean;
  /** Where this model is not as the saved one was, such as `mode: strict, saved with fast`. Empty if the state was brought back. */
  readonly differences: readonly string[];
}

/**
 * Writes a conversation and the model's state into a file that is there in full or not at all (Node only). Going on from it in another process gives
 * the same bits as going on here.
 * @returns its bytes
 * @throws {ArgumentError} when it cannot be written
 */
export async function saveSession(path: string, conversation: Conversation, model: SessionModel): Promise<number> {
  const { createHash } = await import('node:crypto');
  const { checkpoints } = conversation;
  const { layers } = checkpoints.snapshot();
  const state = layers.flatMap((arrays, i) => arrays.map((array, j) => stateTensor(`layers.${i}.${j}`, array)));
  const tokens = Int32Array.from(checkpoints.tokens);
  const metadata = new Map([
    ['sha256', NO_DIGEST],
    ['format', FORMAT],
    ['version', VERSION],
    ['session', sessionJson(conversation.record(), model, tokens.length)],
  ]);
  const pieces = writeSafetensors([{ name: 'tokens', dtype: 'I32', shape: [tokens.length], data: tokens }, ...state], metadata);
  const hash = createHash('sha256');
  for (const piece of pieces) hash.update(piece);
  pieces[0]!.set(new TextEncoder().encode(hash.digest('hex')), DIGEST_AT);
  await writeAtomically(
    path,
    async (file) => {
      for (const piece of pieces) await file.writeFile(piece);
      return true;
    },
    PRIVATE,
  );
  return pieces.reduce((sum, { length }) => sum + length, 0);
}

/**
 * Looks at the header of a session, before a model is loaded for it (Node only).
 * @throws {SessionError} when the file is none, or of another version
 */
export async function checkSession(path: string): Promise<void> {
  const source = await openFile(path).catch((error: unknown) => refuse(error, NO_SESSION));
  try {
    await readHeader(source);
  } finally {
    await source.close();
  }
}

/**
 * Reads a session into a conversation (Node only). With the same model in other formats or another mode the messages are brought back, and the state
 * is made again with the next answer.
 * @throws {SessionError} when the file is damaged, of another version or of another model, or needs a longer context; then nothing is changed
 * @throws {ArgumentError} while an answer is given
 */
export async function loadSession(path: string, conversation: Conversation, model: SessionModel): Promise<LoadedSession> {
  const source = await openFile(path).catch((error: unknown) => refuse(error, NO_SESSION));
  try {
    const file = await readHeader(source);
    await checkDigest(source);
    const session = parseSession(file.metadata.get('session') ?? '', path);
    const differences = compare(path, session, model, conversation.checkpoints.context);
    const state = differences.length === 0 ? await readState(file, session) : null;
    resume(conversation, session, state, path);
    return { messages: session.record.messages.length, state: state !== null, differences };
  } finally {
    await source.close();
  }
}

async function readHeader(source: ByteSource): Promise<SafetensorsFile> {
  const file = await readSafetensors(source).catch((error: unknown) => refuse(error, NO_SESSION));
  checkVersion(file);
  return file;
}

/** @throws {SessionError} when the model refuses the state, which is of its own weights and config: then it is not one that a model gave */
function resume(conversation: Conversation, { record }: Session, state: ConversationState | null, path: string): void {
  try {
    conversation.resume(record, state);
  } catch (error) {
    if (!(error instanceof ArgumentError) || !error.problems.every(({ where }) => where === 'snapshot')) throw error;
    throw new SessionError(
      error.problems.map(({ where, ...problem }) => ({ ...problem, where: `${path}: ${where}`, fix: DAMAGED })),
      { cause: error },
    );
  }
}

function stateTensor(name: string, data: FloatArray): TensorData {
  return { name, dtype: data instanceof Float64Array ? 'F64' : 'F32', shape: [data.length], data };
}

/** Before the digest, which another version may form in another way. */
function checkVersion({ source: { name: where }, metadata }: SafetensorsFile): void {
  const [format, version] = [metadata.get('format'), metadata.get('version')];
  if (format !== FORMAT) {
    const found = format === undefined ? 'a safetensors file of something else' : quote(format);
    throw new SessionError({ where, expected: FORMAT, found, fix: NO_SESSION });
  }
  if (version === VERSION) return;
  const found = version === undefined ? 'none' : quote(version);
  throw new SessionError({
    where,
    expected: `version ${VERSION} of the format`,
    found,
    fix: 'Load it with the olmo-hybrid that saved it.',
  });
}

async function checkDigest(source: ByteSource): Promise<void> {
  const { createHash } = await import('node:crypto');
  const begin = new Uint8Array(Math.max(0, Math.min(DIGEST_AT, source.byteLength - NO_DIGEST.length)));
  await source.read(0, begin);
  if (new TextDecoder().decode(begin.subarray(8)) !== BEGINNING) {
    const found = quote(new TextDecoder().decode(begin.subarray(8)));
    throw new SessionError({ where: source.name, expected: `a header that begins with ${BEGINNING}`, found, fix: DAMAGED });
  }
  const hash = createHash('sha256');
  const buffer = new Uint8Array(Math.min(HASHED_AT_ONCE, source.byteLength));
  const noDigest = new TextEncoder().encode(NO_DIGEST);
  let said = '';
  for (let at = 0; at < source.byteLength; at += buffer.length) {
    const part = buffer.subarray(0, Math.min(buffer.length, source.byteLength - at));
    await source.read(at, part);
    if (at === 0) {
      said = new TextDecoder().decode(part.subarray(DIGEST_AT, DIGEST_AT + NO_DIGEST.length));
      part.set(noDigest, DIGEST_AT);
    }
    hash.update(part);
  }
  const found = hash.digest('hex');
  if (found !== said) throw new SessionError({ where: source.name, expected: `bytes of sha256 ${quote(said)}`, found, fix: DAMAGED });
}

/** What keeps the state from being used. @throws {SessionError} when the messages cannot be used either */
function compare(where: string, session: Session, model: SessionModel, context: number): string[] {
  if (session.weights_sha256 !== model.weights_sha256) {
    const fix = 'Load the model that it was saved with.';
    const [expected, found] = [`a session of the weights of sha256 ${model.weights_sha256}`, session.weights_sha256];
    throw new SessionError({ where, expected, found, fix });
  }
  const keys = Object.entries(model.config).filter(([key, value]) => key !== 'unknown_keys' && !same(value, session.config[key]));
  if (keys.length > 0) {
    const [expected, found] = [values(keys), values(keys.map(([key]) => [key, session.config[key]]))];
    throw new SessionError({ where, expected: `a config with ${expected}`, found, fix: 'Use the config.json that it was saved with.' });
  }
  if (session.tokens > context) {
    const fix = `Load the model with a context of ${session.tokens} or more.`;
    throw new SessionError({ where, expected: `at most ${context} tokens, the context`, found: `${session.tokens}`, fix });
  }
  return Object.entries(model.engine)
    .filter(([name, value]) => session.engine[name] !== value)
    .map(([name, value]) => `${name}: ${value}, saved with ${session.engine[name] ?? 'none'}`);
}

async function readState({ source, tensors }: SafetensorsFile, { tokens: count }: Session): Promise<ConversationState> {
  const arrays = new Map<string, FloatArray>();
  let tokens: number[] | null = null;
  for (const entry of tensors.values()) {
    const array = await readTensor(entry);
    if (entry.name === 'tokens' && array instanceof Int32Array && array.length === count) tokens = [...array];
    else if (array instanceof Float32Array || array instanceof Float64Array) arrays.set(entry.name, array);
  }
  if (tokens === null) {
    throw new SessionError({ where: source.name, expected: `${count} token ids in a tensor "tokens"`, found: 'none', fix: DAMAGED });
  }
  // Their number for each layer and their lengths are the model's to check.
  const layers: FloatArray[][] = [];
  for (let array = arrays.get('layers.0.0'); array; array = arrays.get(`layers.${layers.length}.0`)) {
    const ofLayer: FloatArray[] = [];
    for (let next: FloatArray | undefined = array; next; next = arrays.get(`layers.${layers.length}.${ofLayer.length}`)) ofLayer.push(next);
    layers.push(ofLayer);
  }
  return { tokens, snapshot: { position: count, layers } };
}

function refuse(error: unknown, fix: string): never {
  if (!(error instanceof CheckpointError)) throw error;
  throw new SessionError(
    error.problems.map((problem) => ({ ...problem, fix })),
    { cause: error },
  );
}

function same(a: unknown, b: unknown): boolean {
  return JSON.stringify(a) === JSON.stringify(b);
}

function values(entries: readonly (readonly [key: string, value: unknown])[]): string {
  return entries.map(([key, value]) => `${key} ${JSON.stringify(value) ?? 'absent'}`).join(', ');
}
