import { CheckpointError, RuntimeLimitError } from '../errors.ts';
import type { ByteSource } from './byte_source.ts';
import { DECODERS, DTYPES, type Dtype, isDtype, type TensorArray, tensorBytes } from './dtype.ts';
import { JsonScanner } from './json_scanner.ts';
import { DAMAGED, ProblemList, quote } from './problem_list.ts';

/** Where one tensor is; row-major, little-endian. */
export interface TensorEntry {
  readonly name: string;
  readonly dtype: Dtype;
  /** `[]` for a scalar; a dimension may be 0. */
  readonly shape: readonly number[];
  readonly source: ByteSource;
  /** First byte in the source. */
  readonly offset: number;
  readonly byteLength: number;
}

/** A safetensors file whose header was found sound. */
export interface SafetensorsFile {
  readonly source: ByteSource;
  /** The header's `__metadata__`. */
  readonly metadata: ReadonlyMap<string, string>;
  /** In the order of their bytes. */
  readonly tensors: ReadonlyMap<string, TensorEntry>;
}

const LENGTH_BYTES = 8;
const LONGEST_HEADER = 100_000_000; // the format's limit
const METADATA = '__metadata__';
const FIELDS = ['dtype', 'shape', 'data_offsets'];
const OPEN_BRACE = 0x7b;

const INCOMPLETE = 'The file is incomplete: download it again.';

/**
 * Reads and checks a safetensors header; no tensor data is read. A header is taken only if it obeys every rule of
 * github.com/huggingface/safetensors (README, Format): no duplicate or unknown keys, sizes that agree, data without holes or overlap.
 * @param source the file; it stays open, also on failure.
 * @throws {CheckpointError} with every problem of the header, by file, tensor and offset.
 */
export async function readSafetensors(source: ByteSource): Promise<SafetensorsFile> {
  const header = await readHeader(source);
  const problems = new ProblemList(source.name);
  const dataStart = LENGTH_BYTES + header.length;
  const metadata = new Map<string, string>();
  const entries: TensorEntry[] = [];

  const scanner = new JsonScanner(source.name, header, LENGTH_BYTES, problems);
  scanner.object('header', 'an object', (name) => {
    if (name === METADATA) {
      scanner.object(METADATA, 'an object of strings', (key) => {
        const value = scanner.string(key, `a string, as every value in ${METADATA}`);
        if (value !== null) metadata.set(key, value);
      });
    } else {
      const entry = scanEntry(scanner, name, source, dataStart, problems);
      if (entry !== null) entries.push(entry);
    }
  });
  scanner.end();
  // The layout is judged only when every size is right: otherwise each wrong size would be reported again as a hole or an overlap.
  problems.throwIfAny();

  // An empty tensor lies before the tensor that begins at the same byte.
  entries.sort((a, b) => a.offset - b.offset || a.byteLength - b.byteLength);
  checkLayout(entries, source, dataStart, problems);
  problems.throwIfAny();
  return { source, metadata, tensors: new Map(entries.map((entry) => [entry.name, entry])) };
}

/** Reads the bytes of the header once its length is known to be possible. */
async function readHeader(source: ByteSource): Promise<Uint8Array> {
  const refuse = (offset: number, expected: string, found: string, fix: string) =>
    new CheckpointError({ where: `${source.name} at byte ${offset}`, expected, found, fix });

  if (source.byteLength < LENGTH_BYTES) {
    throw refuse(0, 'the 8 bytes of the header length', `a file of ${source.byteLength} bytes`, INCOMPLETE);
  }
  const prefix = new Uint8Array(LENGTH_BYTES);
  await source.read(0, prefix);
  const length = new DataView(prefix.buffer).getBigUint64(0, true);
  if (length > LONGEST_HEADER) {
    throw refuse(0, `a header length of at most ${LONGEST_HEADER}`, `${length}`, 'This is not a safetensors file, or it is damaged.');
  }
  if (length > source.byteLength - LENGTH_BYTES) {
    throw refuse(LENGTH_BYTES, `a header of ${length} bytes`, `the end of the file at byte ${source.byteLength}`, INCOMPLETE);
  }
  const header = new Uint8Array(Number(length));
  await source.read(LENGTH_BYTES, header);
  if (header[0] !== OPEN_BRACE) {
    const found = header.length === 0 ? 'an empty header' : `the byte 0x${header[0]!.toString(16).padStart(2, '0')}`;
    throw refuse(LENGTH_BYTES, 'a header that begins with "{"', found, 'This is not a safetensors file, or it is damaged.');
  }
  return header;
}

/** Reads the description of one tensor; null when it has a problem. */
function scanEntry(scanner: JsonScanner, name: string, source: ByteSource, dataStart: number, problems: ProblemList): TensorEntry | null {
  const report = (expected: string, found: string): null => {
    problems.add({ where: `${source.name}: ${quote(name)}`, expected, found, fix: DAMAGED });
    return null;
  };
  const field: { dtype: string | null; shape: number[] | null; offsets: number[] | null } = { dtype: null, shape: null, offsets: null };
  const keys = scanner.object(name, 'an object with dtype, shape and data_offsets', (key) => {
    if (key === 'dtype') field.dtype = scanner.string(name, 'dtype as a string');
    else if (key === 'shape') field.shape = scanner.integers(name, 'shape as whole numbers below 2^53');
    else if (key === 'data_offsets') field.offsets = scanner.integers(name, 'data_offsets as whole numbers below 2^53');
    else {
      scanner.skip();
      report(`only the keys ${FIELDS.join(', ')}`, quote(key));
    }
  });
  for (const key of FIELDS) if (keys?.has(key) === false) report(`the keys ${FIELDS.join(', ')}`, `no ${key}`);

  const { dtype, shape, offsets } = field;
  if (dtype !== null && !isDtype(dtype)) return report(`one of the dtypes ${DTYPES.join(', ')}`, quote(dtype));
  if (offsets !== null && offsets.length !== 2) return report('data_offsets [begin, end]', list(offsets));
  if (dtype === null || shape === null || offsets === null) return null;

  const [begin, end] = offsets as [number, number];
  const byteLength = tensorBytes(dtype, shape);
  if (byteLength === null) return report('a whole number of bytes below 2^53', `${dtype} ${list(shape)}`);
  if (byteLength !== end - begin) return report(`${byteLength} bytes for ${dtype} ${list(shape)}`, `data_offsets ${list(offsets)}`);
  return { name, dtype, shape, source, offset: dataStart + begin, byteLength };
}

/** Checks that tensors, sorted by offset, follow each other without a gap from the end of the header to the end of the file. */
function checkLayout(entries: readonly TensorEntry[], source: ByteSource, dataStart: number, problems: ProblemList): void {
  let end = dataStart;
  let before: string | null = null;
  let cutOff = false;
  const report = (name: string, expected: string, found: string, fix: string) =>
    problems.add({ where: `${source.name}: ${quote(name)}`, expected, found, fix });
  const endOfLast = () => `byte ${end}, where ${before === null ? 'the header' : quote(before)} ends`;

  for (const { name, offset, byteLength } of entries) {
    if (offset !== end) {
      report(name, `data from ${endOfLast()}`, `byte ${offset}, which makes ${offset > end ? 'a hole' : 'an overlap'}`, DAMAGED);
    } else if (end + byteLength > source.byteLength && !cutOff) {
      cutOff = true; // what follows is missing as well, and for the same reason
      report(name, `data up to byte ${end + byteLength}`, `the end of the file at byte ${source.byteLength}`, INCOMPLETE);
    }
    if (offset + byteLength < end) continue;
    end = offset + byteLength;
    before = name;
  }
  if (end < source.byteLength) {
    const found = `${source.byteLength - end} more bytes`;
    problems.add({ where: source.name, expected: `the end of the file at ${endOfLast()}`, found, fix: DAMAGED });
  }
}

function list(integers: readonly number[]): string {
  return `[${integers.slice(0, 8).join(', ')}${integers.length > 8 ? `, … ${integers.length} in all` : ''}]`;
}

/**
 * Reads a whole tensor into a new array of the natural type; large weights are better read in place, by `source.read`.
 * @throws {CheckpointError} when the bytes cannot be read, or the dtype has no JavaScript array (8-bit floats and less, complex numbers).
 * @throws {RuntimeLimitError} when there is no memory for it.
 */
export async function readTensor({ name, dtype, source, offset, byteLength }: TensorEntry): Promise<TensorArray> {
  const where = `${source.name}: ${quote(name)}`;
  const decode = DECODERS.get(dtype);
  if (decode === undefined) {
    const expected = `one of the dtypes ${[...DECODERS.keys()].join(', ')}`;
    throw new CheckpointError({ where, expected, found: dtype, fix: 'Convert the checkpoint to BF16.' });
  }
  try {
    const bytes = new Uint8Array(byteLength);
    await source.read(offset, bytes);
    return decode(bytes.buffer);
  } catch (cause) {
    if (!(cause instanceof RangeError)) throw cause;
    const problem = { where, expected: `${byteLength} bytes of memory`, found: 'less', fix: 'Free memory, or read the tensor in pieces.' };
    throw new RuntimeLimitError(problem, { cause });
  }
}
