import type { OpKind, TracedOp } from '../trace_format.ts';

/** What the values of a trace were computed in, the finest first. */
export const PRECISIONS = ['f64', 'f32', 'bf16', 'q8', 'q4'] as const;
export type Precision = (typeof PRECISIONS)[number];

/** Significant bits of a value, and the exponent below which they grow fewer: what one ulp is. */
export const FORMATS: Readonly<Record<Precision, { readonly bits: number; readonly least_exponent: number }>> = {
  f64: { bits: 53, least_exponent: -1022 },
  f32: { bits: 24, least_exponent: -126 },
  bf16: { bits: 8, least_exponent: -126 },
  q8: { bits: 8, least_exponent: -126 },
  q4: { bits: 8, least_exponent: -126 },
};

/**
 * How many times the relative error of an op's inputs its output may have without further question. Measured between these kernels and
 * PyTorch: beyond 2 the bounds of the ops themselves allow for the rest, but for norms of something small, attention and the delta rule.
 * These are recomputed.
 */
export const GROWTH = 2;

/**
 * What rounding inside one op may do to its output, as a relative RMS, when two implementations get the same inputs. u is half an ulp.
 *
 * f32 (u = 6e-8): elementwise ops and norms a few u, a norm over some thousand elements summed one by one about 1e-6. A product of width K
 * summed one by one has u sqrt(K / 2): 4.4e-6 for the 7B's widest. Attention turns the rounding of a score into a relative error of its
 * exp, so u times the largest scores. The chunked and the recurrent form of the delta rule round in another order altogether.
 * bf16 (u = 2e-3): sums are kept in f32, so u times the roundings between the steps of an op, of which PyTorch's norms have the most.
 * q8, q4: against weights that are not quantised. In blocks of 32 with a scale the nearest of 8 bits is off by 6e-3, with a minimum that of 4
 * bits by 8e-2, and inputs of 8 bits by about 1e-2; a zero point off by one is 2e-2 and 3e-1. Activations are in bf16 or better.
 * A gate makes more than twice as much of an error of that size, and cannot be recomputed.
 * f64: the bounds of f32 by 2^-29.
 */
const F32: Readonly<Record<OpKind, number>> = {
  lookup: 0,
  linear: 1e-5,
  norm: 1e-6,
  conv: 1e-6,
  gate: 1e-6,
  rotary: 1e-6,
  recurrence: 1e-5,
  attention: 1e-5,
  sum: 1e-6,
};
const ROUNDINGS = { lookup: 1, linear: 2, norm: 4, conv: 3, gate: 3, rotary: 3, recurrence: 2, attention: 3, sum: 3 };
const BF16 = each(ROUNDINGS, (count) => count * 2 ** -9);
export const OWN: Readonly<Record<Precision, Readonly<Record<OpKind, number>>>> = {
  f64: each(F32, (bound) => bound * 2 ** -29),
  f32: F32,
  bf16: BF16,
  q8: { ...BF16, lookup: 1e-2, linear: 1.5e-2, gate: 2e-2 },
  q4: { ...BF16, lookup: 1e-1, linear: 1.2e-1, gate: 1e-1 },
};

function each(bounds: Readonly<Record<OpKind, number>>, change: (bound: number) => number): Record<OpKind, number> {
  return Object.fromEntries(Object.entries(bounds).map(([kind, bound]) => [kind, change(bound)])) as Record<OpKind, number>;
}

/** The coarser of two precisions: theirs is the tolerance. */
export function coarser(a: Precision, b: Precision): Precision {
  return PRECISIONS[Math.max(PRECISIONS.indexOf(a), PRECISIONS.indexOf(b))]!;
}

/**
 * What rounding inside an op may do to its output, as a relative RMS.
 * @param T tokens: the angle of a rotary position embedding is a product of an f32 and the position, with an error of up to T u.
 */
export function ownBound({ kind }: TracedOp, precision: Precision, T: number): number {
  const angle = kind === 'rotary' ? T * 2 ** -FORMATS[precision === 'f64' ? 'f64' : 'f32'].bits : 0;
  return OWN[precision][kind] + angle;
}
