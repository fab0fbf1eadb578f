import type { Matrix, WeightFormat } from '../runtime/tensor.ts';
import { PANEL } from '../runtime/tensor.ts';
import { ProblemList, quote } from './problem_list.ts';
import type { SafetensorsFile, TensorEntry } from './safetensors.ts';

// Quantised matrices in safetensors files, as docs/quantised_format.md describes them: U8 [panels, blocks, bytes of a block], so that the shape tells
// the format, and the data is what lies in memory.

export const QUANTISED_FORMAT_VERSION = '5';
const VERSION_KEY = 'quantised_format_version';

/** Weights that share a scale. */
export const BLOCK = 32;
/** Bytes of a block of 16 outputs by 32 weights; assembly/panels.ts has what lies in them. */
export const BLOCK_BYTES = { Q8: 544, Q4: 288 } as const;
/** Where the scales of a block begin, the bits of each that tell one that is not finite, and what they are then. */
const SCALES = { Q8: { at: 512, mask: 0x7f80, spoilt: 0x7f80 }, Q4: { at: 256, mask: 0xffc0, spoilt: 0xffc0 } } as const;

/** What quantised matrices were made of: tensors, by their digest, or files of a repository, each by its sha256. */
type QuantisedSource =
  | { readonly source_weights_sha256: string }
  | { readonly source_repository: string; readonly source_commit: string; readonly source_files_sha256: string };

/** What a quantised folder says of itself. */
interface Quantisation {
  readonly weights: string;
  /** null when it was made of a repository. */
  readonly source_weights_sha256: string | null;
  /** `org/name`; null when it was made of a folder. */
  readonly source_repository: string | null;
  readonly source_commit: string | null;
}

/** What a file says of its quantised matrices. */
export function quantisedMetadata(weights: 'q8' | 'q4', source: QuantisedSource): Map<string, string> {
  return new Map([
    [VERSION_KEY, QUANTISED_FORMAT_VERSION],
    ['weights', weights],
    ['block', String(BLOCK)],
    ['panel', String(PANEL)],
    ...Object.entries(source),
  ]);
}

/** What the files of a quantised folder say of themselves; null of a folder that is not. */
export function quantisationOf(files: ReadonlyMap<string, SafetensorsFile>): Quantisation | null {
  const [file] = files.values();
  const { metadata } = file!;
  if (!metadata.has(VERSION_KEY)) return null;
  const said = (key: string) => metadata.get(key) ?? null;
  return {
    weights: said('weights') ?? 'unknown',
    source_weights_sha256: said('source_weights_sha256'),
    source_repository: said('source_repository'),
    source_commit: said('source_commit'),
  };
}

/** The format of a stored matrix by its dtype and shape; null if it is not quantised. */
export function packedFormat({ dtype, shape }: Pick<TensorEntry, 'dtype' | 'shape'>): 'Q8' | 'Q4' | null {
  if (dtype !== 'U8' || shape.length !== 3) return null;
  return (['Q8', 'Q4'] as const).find((format) => BLOCK_BYTES[format] === shape[2]) ?? null;
}

/** The shape in which a matrix [N, K] is stored. */
export function packedShape({ format, N, K }: Pick<Matrix, 'format' | 'N' | 'K'>): readonly [number, number, number] {
  return [Math.ceil(N / PANEL), Math.ceil(K / BLOCK), BLOCK_BYTES[format as 'Q8' | 'Q4']];
}

/** How many scales of whole blocks are NaN or infinite, or what stands for that in Q4: a NaN or infinite weight has spoilt them. */
export function spoiltBlocks(bytes: Uint8Array, format: WeightFormat): number {
  const { at, mask, spoilt } = SCALES[format as 'Q8' | 'Q4'];
  const step = BLOCK_BYTES[format as 'Q8' | 'Q4'];
  let bad = 0;
  for (let begin = at; begin < bytes.length; begin += step) {
    for (let i = begin; i < begin + 2 * PANEL; i += 2) if (((bytes[i]! | (bytes[i + 1]! << 8)) & mask) === spoilt) bad++;
  }
  return bad;
}

/**
 * @throws {CheckpointError} when quantised matrices are of a version that is not known here, or of none, or the files say different things of
 *   themselves: then they are not of one model
 */
export function checkQuantisedFiles(byName: ReadonlyMap<string, SafetensorsFile>): void {
  const files = [...byName.values()];
  const formats = files.flatMap(({ tensors }) => [...tensors.values()].map(packedFormat)).filter((format) => format !== null);
  if (formats.length === 0 && !files.some(({ metadata }) => metadata.has(VERSION_KEY))) return;
  const problems = new ProblemList('quantised weights');
  const sources = files.flatMap(({ metadata }) => [...metadata].filter(([key]) => key.startsWith('source_')));
  const same = new Map([
    ['weights', formats.includes('Q4') ? 'q4' : 'q8'],
    ['block', String(BLOCK)],
    ['panel', String(PANEL)],
    ...sources.reverse(), // of those that differ the first file's
  ]);
  for (const { source, metadata } of files) {
    const version = metadata.get(VERSION_KEY);
    const found = (value: string | undefined) => (value === undefined ? 'none' : quote(value));
    if (version !== QUANTISED_FORMAT_VERSION) {
      problems.add({
        where: source.name,
        expected: `quantised weights with ${VERSION_KEY} ${QUANTISED_FORMAT_VERSION} in their metadata`,
        found: found(version),
        fix: 'Quantise the original again with this version of olmo-hybrid.',
      });
      continue;
    }
    for (const [key, value] of same) {
      if (metadata.get(key) === value) continue;
      const where = `${source.name}: ${key}`;
      problems.add({
        where,
        expected: `${quote(value)} in every file`,
        found: found(metadata.get(key)),
        fix: 'Quantise the original again.',
      });
    }
  }
  problems.throwIfAny();
}
