import { l2_norm } from '../reference/l2_norm.ts';
import type { Evidence } from './evidence.ts';
import { type DeltaInputs, normalized, product, silus, sum } from './formulas.ts';
import { convolutionWeight, normWeight } from './parameters.ts';
import type { Values } from './trace_file.ts';

// Ops recomputed from what the suspected implementation put in; small weights are solved for in the right trace.

export const L2_EPS = 1e-6;
export const O_NORM_EPS = 1e-5;
/** Of RMS norms, which the config sets. */
export const RMS_EPS = 1e-6;
/** Values of eps that are found in models and ports. */
export const EPS = [0, 1e-12, 1e-8, 1e-6, 1e-5, 1e-3];

/** Size of the last axis. */
export function widthOf({ shape }: Values): number {
  return shape.at(-1)!;
}

/**
 * x / rms(x) * weight of the sum of the op's inputs: of a residual stream, what was added.
 * @param width of what is normalised at once; default: the full width.
 */
export async function rmsNorm(e: Evidence, eps: number, width?: number): Promise<Float64Array> {
  const y = await e.output('right');
  const D = y.data.length / y.shape[0]!;
  const x = sum(await e.rightInputs());
  const weight = normWeight(x, normalized(x, D, RMS_EPS), y.data, D);
  return product(normalized(sum(await e.inputs()), width ?? D, eps), weight);
}

export async function gatedNormWeight(e: Evidence): Promise<Float64Array> {
  const [x, gate] = (await e.rightInputs()) as [Values, Values];
  const scaled = product(normalized(sum([x]), widthOf(x), O_NORM_EPS), silus(gate));
  return normWeight(x.data, scaled, (await e.output('right')).data, widthOf(x));
}

/** x / rms(x) * weight * silu(gate). */
export async function gatedNorm(e: Evidence, eps: number): Promise<Float64Array> {
  const [x, gate] = (await e.inputs()) as [Values, Values];
  return product(product(normalized(sum([x]), widthOf(x), eps), silus(gate)), await gatedNormWeight(e));
}

export async function l2Norm(e: Evidence, epsOf: (D: number) => number): Promise<Float64Array> {
  const [x] = (await e.inputs()) as [Values];
  const D = widthOf(x);
  const y = new Float64Array(x.data.length);
  l2_norm(y, x.data, y.length / D, D, epsOf(D));
  return y;
}

/** A convolution with the weight of the right trace; null where that cannot be solved for. */
export async function withWeight(e: Evidence, y: (x: Float64Array, weight: Float64Array) => Float64Array): Promise<Float64Array | null> {
  const [[x], [rightX]] = (await Promise.all([e.inputs(), e.rightInputs()])) as [[Values], [Values]];
  const weight = convolutionWeight(rightX, await e.output('right'));
  return weight && y(sum([x]), weight);
}

export async function deltaInputs(e: Evidence): Promise<DeltaInputs> {
  return (await e.inputs()) as unknown as DeltaInputs;
}

/** The positions that attention sees, by the first row that is not as if all were; T if there is none, 0 if that is the first. */
export function windowOf(all: Float64Array, { data, shape }: Values): number {
  const rowLength = data.length / shape[0]!;
  const at = data.findIndex((value, i) => !(Math.abs(value - all[i]!) <= 1e-3 * Math.abs(all[i]!) + 1e-6));
  return at < 0 ? shape[0]! : Math.floor(at / rowLength);
}
