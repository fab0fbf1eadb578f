import type { Problem } from '../errors.ts';
import { forwardPass, type TracedOp } from '../trace_format.ts';
import { type Cause, causeOf, followsFromInputs } from './cause.ts';
import { checkMetadata, checkNames, layerTypes, noticesOf, shapeProblem, unlikeShapes } from './comparable.ts';
import { distance, type Measure, measure, ulpDistance } from './measure.ts';
import { GROWTH, OWN, ownBound, type Precision } from './tolerance.ts';
import { openTrace, type TraceFile, type Values } from './trace_file.ts';

/**
 * `agrees`: within what rounding may do. `follows`: its inputs differ, and it no more than they explain. `diverges`: more than that, so the
 * op itself is at fault.
 */
export type Verdict = 'agrees' | 'follows' | 'diverges';

/** A token or a head, and the RMS of the difference there over the RMS of all of A. */
export interface Part {
  readonly index: number;
  readonly relative_rms: number;
}

/** One op in both traces. */
export interface OpDifference extends Pick<Measure, 'relative_rms' | 'max_ulp' | 'ulp_histogram'> {
  readonly name: string;
  readonly layer: number | null;
  readonly op: string;
  /** Largest relative RMS of the op's inputs. */
  readonly inputs_relative_rms: number;
  /** What rounding inside the op may do. */
  readonly own_bound: number;
  /** What the relative RMS may be without further question, given that of the inputs. */
  readonly bound: number;
  readonly verdict: Verdict;
  /** null for a state. */
  readonly worst_position: Part | null;
  /** null for an op without heads. */
  readonly worst_head: Part | null;
}

/** Where the traces part. */
export interface Divergence extends Pick<Measure, 'by_position' | 'by_head'> {
  readonly difference: OpDifference;
  /** The first token beyond the bound, or the furthest if none is by itself; null for a state. */
  readonly position: number | null;
  /** null for an op without heads. */
  readonly head: number | null;
  /** Index on the last axis of the element that is furthest off at this position. */
  readonly element: number;
  readonly a: number;
  readonly b: number;
  readonly ulp: number;
  /** Which trace is NaN or infinite there, B if both are, and whether the inputs that it shows are finite; null where both are finite. */
  readonly not_finite: { readonly side: 'A' | 'B'; readonly inputs_finite: boolean | null } | null;
  /** null for none, and where a trace is not finite: nothing can be said of that. */
  readonly cause: Cause | null;
}

export interface TraceDifference {
  readonly outcome: 'same' | 'diverged' | 'not comparable';
  readonly a: { readonly path: string; readonly metadata: Readonly<Record<string, string>> };
  readonly b: { readonly path: string; readonly metadata: Readonly<Record<string, string>> };
  /** The coarser of the two, which sets the tolerance; null when one is unknown. */
  readonly precision: Precision | null;
  /** What keeps the traces from being compared, or from being compared in full. */
  readonly problems: readonly Problem[];
  /** Those of the problems that are of shapes: what both traces hold, each in its own. */
  readonly unlike_shapes: readonly { readonly name: string; readonly a: readonly number[]; readonly b: readonly number[] }[];
  /** What else is not alike, such as the digest of the weights. */
  readonly notices: readonly string[];
  /** Every op that both traces hold, in the order of computation. */
  readonly ops: readonly OpDifference[];
  readonly first: Divergence | null;
}

/**
 * Compares two traces op by op in the order of computation (Node only).
 * @param pathA The trace that is trusted. @param pathB The one that is examined.
 * @throws {CheckpointError} when one of the files cannot be read.
 */
export async function diffTraces(pathA: string, pathB: string): Promise<TraceDifference> {
  const a = await openTrace(pathA);
  try {
    const b = await openTrace(pathB);
    try {
      return await compare(a, b);
    } finally {
      await b.close();
    }
  } finally {
    await a.close();
  }
}

async function compare(a: TraceFile, b: TraceFile): Promise<TraceDifference> {
  const notices = noticesOf(a, b);
  const described = { a: describe(a), b: describe(b), notices };
  const [precision, incomparable] = checkMetadata(a, b);
  if (precision === null || incomparable.length > 0) {
    return { outcome: 'not comparable', ...described, precision, problems: incomparable, unlike_shapes: [], ops: [], first: null };
  }
  const pass = forwardPass(layerTypes([...a.shapes.keys(), ...b.shapes.keys()]));
  const unlike = unlikeShapes(pass, a, b);
  const problems = [...checkNames(pass, a, b), ...unlike.map(shapeProblem)];
  const unlike_shapes = unlike.map(({ op, ...shapes }) => ({ name: op.name, ...shapes }));
  const unlikeOps = new Set(unlike.map(({ op }) => op));

  const errors = new Map<string, number>(); // relative RMS of each op; of one that is not held, what it may be
  const inputsOf = (op: TracedOp) => op.inputs.reduce((most, input) => Math.max(most, errors.get(input)!), 0);
  const ops: OpDifference[] = [];
  let first: Divergence | null = null;
  let notFinite: string | null = null;
  for (const op of pass) {
    const inputs = inputsOf(op);
    errors.set(op.name, inputs + OWN[precision][op.kind]);
    if (!a.shapes.has(op.name) || !b.shapes.has(op.name) || unlikeOps.has(op)) continue;
    let { difference, both_not_finite } = differenceOf(op, await a.read(op.name), await b.read(op.name), precision, inputs);
    if (both_not_finite) notFinite ??= op.name;
    errors.set(op.name, difference.relative_rms);
    if (difference.verdict === 'diverges') {
      const lone = await loneRotary(op, inputsOf, pass, a, b, precision);
      if (!lone && (await followsFromInputs(op, pass, a, b, difference.own_bound))) difference = { ...difference, verdict: 'follows' };
      else if (first === null) {
        first = await locate(lone ?? op, inputsOf(lone ?? op), pass, a, b, precision);
        if (lone) ops.push(first.difference);
      }
    }
    ops.push(difference);
  }
  if (notFinite !== null) notices.push(`A and B are both NaN or infinite from ${notFinite} on, where that counts as alike`);
  const outcome = first ? 'diverged' : problems.length > 0 || ops.length === 0 ? 'not comparable' : 'same';
  return { outcome, ...described, precision, problems, unlike_shapes, ops, first };
}

function differenceOf(
  op: TracedOp,
  a: Values,
  b: Values,
  precision: Precision,
  inputs: number,
): Pick<Divergence, 'difference' | 'by_position' | 'by_head'> & Pick<Measure, 'both_not_finite'> {
  const { by_position, by_head, both_not_finite, ...measured } = measure(a, b, op.head_axis, precision);
  const own_bound = ownBound(op, precision, by_position.length);
  const bound = own_bound + GROWTH * inputs;
  const verdict = measured.relative_rms <= own_bound ? 'agrees' : measured.relative_rms <= bound ? 'follows' : 'diverges';
  const worst = { worst_position: largest(by_position), worst_head: by_head && largest(by_head) };
  const difference = {
    name: op.name,
    layer: op.layer,
    op: op.op,
    ...measured,
    inputs_relative_rms: inputs,
    own_bound,
    bound,
    verdict,
    ...worst,
  } as const;
  return { difference, by_position, by_head, both_not_finite };
}

function largest(parts: readonly number[]): Part | null {
  const index = parts.reduce((most, error, i) => (error > parts[most]! ? i : most), 0);
  return parts.length === 0 ? null : { index, relative_rms: parts[index]! };
}

/**
 * A rotary embedding that only one trace has, and that is not the identity: the other passes on its input. Where the attention behind it
 * diverges, it is there that the traces part; that each attention follows from what it was given says nothing of it. Where the attention
 * agrees, it is only not shown.
 */
async function loneRotary(
  attention: TracedOp,
  inputsOf: (op: TracedOp) => number,
  pass: readonly TracedOp[],
  a: TraceFile,
  b: TraceFile,
  precision: Precision,
): Promise<TracedOp | undefined> {
  for (const op of pass) {
    if (op.kind !== 'rotary' || !attention.inputs.includes(op.name) || a.shapes.has(op.name) === b.shapes.has(op.name)) continue;
    const [ofA, ofB] = [shownFor(op, a), shownFor(op, b)];
    if (a.shapes.get(ofA)?.join() !== b.shapes.get(ofB)?.join() || !a.shapes.has(ofA)) continue;
    const { difference } = differenceOf(op, await a.read(ofA), await b.read(ofB), precision, inputsOf(op));
    if (difference.verdict === 'diverges') return op;
  }
  return undefined;
}

/** The name under which a trace has the output of an op: a rotary embedding that it does not show passes on its input. */
function shownFor({ name, inputs }: TracedOp, { shapes }: TraceFile): string {
  return shapes.has(name) ? name : inputs[0]!;
}

/** Looks into the op where the traces part. */
async function locate(
  op: TracedOp,
  inputs: number,
  pass: readonly TracedOp[],
  a: TraceFile,
  b: TraceFile,
  precision: Precision,
): Promise<Divergence> {
  const [x, y] = [await a.read(shownFor(op, a)), await b.read(shownFor(op, b))];
  const { difference, by_position, by_head } = differenceOf(op, x, y, precision, inputs);
  const { bound, relative_rms, worst_position } = difference;
  // What is NaN is worse than what is off, wherever it is.
  const most = by_position.includes(Infinity) ? Number.MAX_VALUE : bound;
  const first = by_position.findIndex((error) => !(error <= most));
  const position = first < 0 ? (worst_position?.index ?? null) : first;
  const rowLength = x.data.length / Math.max(by_position.length, 1);
  const begin = (position ?? 0) * rowLength;
  let furthest = begin;
  for (let i = begin; i < begin + rowLength; i++) {
    if (distance(x.data[i]!, y.data[i]!) > distance(x.data[furthest]!, y.data[furthest]!)) furthest = i;
  }
  const [ofA, ofB] = [x.data[furthest]!, y.data[furthest]!];
  const side = !Number.isFinite(ofB) ? 'B' : !Number.isFinite(ofA) ? 'A' : null;
  return {
    difference,
    by_position,
    by_head,
    position,
    head: by_head && Math.floor((furthest - begin) / (rowLength / by_head.length)),
    element: op.elements === 'gates' ? 0 : furthest % x.shape.at(-1)!,
    a: ofA,
    b: ofB,
    ulp: Math.round(ulpDistance(ofA, ofB, precision)),
    not_finite: side && { side, inputs_finite: await areInputsFinite(op, side === 'A' ? a : b) },
    cause: side === null ? await causeOf(op, pass, a, b, relative_rms, bound) : null,
  };
}

/** Of the inputs that a trace shows; null when it shows none. */
async function areInputsFinite({ inputs }: TracedOp, trace: TraceFile): Promise<boolean | null> {
  const shown = inputs.filter((name) => trace.shapes.has(name));
  for (const name of shown) if (!(await trace.read(name)).data.every(Number.isFinite)) return false;
  return shown.length === 0 ? null : true;
}

function describe({ path, metadata }: TraceFile): TraceDifference['a'] {
  return { path, metadata: Object.fromEntries(metadata) };
}
