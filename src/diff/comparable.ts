import { quote } from '../checkpoint/problem_list.ts';
import type { LayerType } from '../config.ts';
import type { Problem } from '../errors.ts';
import { FORMAT_VERSION, type TracedOp } from '../trace_format.ts';
import { listed } from '../words.ts';
import { coarser, PRECISIONS, type Precision } from './tolerance.ts';
import type { TraceFile } from './trace_file.ts';

const MOST_NAMED = 6;

/** An intermediate whose shape is not the same in both traces. */
interface UnlikeShape {
  readonly op: TracedOp;
  readonly a: readonly number[];
  readonly b: readonly number[];
}

/** What is not alike and yet no hindrance. */
export function noticesOf(a: TraceFile, b: TraceFile): string[] {
  const subjects = { weights_sha256: 'the weights', config_sha256: 'config.json' };
  return Object.entries(subjects).flatMap(([key, subject]) => {
    const [ofA, ofB] = [a.metadata.get(key), b.metadata.get(key)];
    return ofA !== undefined && ofB !== undefined && ofA !== ofB ? [`A and B differ in ${subject}, by ${key}`] : [];
  });
}

/** The precision that sets the tolerance, null when one is unknown, and what keeps the traces from being compared at all. */
export function checkMetadata(a: TraceFile, b: TraceFile): [Precision | null, Problem[]] {
  const problems: Problem[] = [];
  const expect = (trace: TraceFile, key: string, expected: string, fits: (value: string) => boolean) => {
    const value = trace.metadata.get(key);
    if (value !== undefined && fits(value)) return;
    const fix = 'docs/trace_format.md says what a trace must say of itself.';
    problems.push({ where: `${trace.path}: ${key}`, expected, found: value === undefined ? 'nothing' : quote(value), fix });
  };
  for (const trace of [a, b]) {
    expect(trace, 'format_version', FORMAT_VERSION, (value) => value === FORMAT_VERSION);
    expect(trace, 'precision', PRECISIONS.join(', '), isPrecision);
    expect(trace, 'tokens_sha256', 'the digest of the token ids', () => true);
  }
  const [tokensA, tokensB] = [a.metadata.get('tokens_sha256'), b.metadata.get('tokens_sha256')];
  if (tokensA !== undefined && tokensB !== undefined && tokensA !== tokensB) {
    const fix = 'Trace the same token ids in both.';
    problems.push({ where: b.path, expected: `the tokens of ${a.path}`, found: 'other tokens, by tokens_sha256', fix });
  }
  const precisions = [a, b].map(({ metadata }) => metadata.get('precision') ?? '');
  return [precisions.every(isPrecision) ? coarser(...(precisions as [Precision, Precision])) : null, problems];
}

function isPrecision(value: string): value is Precision {
  return (PRECISIONS as readonly string[]).includes(value);
}

/** What kinds of layers the names speak of; of a layer by its residual stream alone, any. */
export function layerTypes(names: readonly string[]): LayerType[] {
  const types: LayerType[] = [];
  for (const name of names) {
    const [, layer, mixer] = /^model\.layers\.(\d{1,4})(?!\d)(?:\.(self_attn|post_feedforward_layernorm)\b)?/.exec(name) ?? [];
    if (layer !== undefined && (mixer !== undefined || types[Number(layer)] === undefined)) {
      types[Number(layer)] = mixer === undefined ? 'linear_attention' : 'full_attention';
    }
  }
  return Array.from(types, (type) => type ?? 'linear_attention');
}

/** Names that only one trace has. */
export function checkNames(pass: readonly TracedOp[], a: TraceFile, b: TraceFile): Problem[] {
  const known = new Set(pass.map(({ name }) => name));
  const problems: Problem[] = [];
  for (const [one, other] of [[a, b] as const, [b, a] as const]) {
    const missing = pass.filter(({ name }) => one.shapes.has(name) && !other.shapes.has(name)).map(({ name }) => name);
    if (missing.length > 0) {
      const fix = 'Trace them as well, or leave them out of both with --only.';
      problems.push({ where: other.path, expected: `all names of ${one.path}`, found: `no ${listed(missing, MOST_NAMED)}`, fix });
    }
    const unknown = [...one.shapes.keys()].filter((name) => !known.has(name));
    if (unknown.length > 0) {
      const fix = 'docs/trace_format.md lists the names.';
      problems.push({ where: one.path, expected: 'names of the format', found: listed(unknown.map(quote), MOST_NAMED), fix });
    }
  }
  return problems;
}

/** What both traces hold, each in another shape. */
export function unlikeShapes(pass: readonly TracedOp[], a: TraceFile, b: TraceFile): UnlikeShape[] {
  return pass.flatMap((op) => {
    const [x, y] = [a.shapes.get(op.name), b.shapes.get(op.name)];
    return x === undefined || y === undefined || x.join() === y.join() ? [] : [{ op, a: x, b: y }];
  });
}

export function shapeProblem({ op, a, b }: UnlikeShape): Problem {
  const transposed = op.elements === 'state' && [a[0], a[2], a[1]].join() === b.join();
  const fix = transposed ? 'B has the state transposed.' : 'docs/trace_format.md gives the shape.';
  return { where: op.name, expected: `[${a.join(', ')}], as in A`, found: `[${b.join(', ')}] in B`, fix };
}
