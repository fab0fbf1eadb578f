import type { TracedOp } from '../trace_format.ts';
import { Absent, Evidence } from './evidence.ts';
import { relativeRms } from './measure.ts';
import { type Recomputation, recomputationsOf } from './right.ts';
import type { Signature } from './signature.ts';
import { SIGNATURES } from './signatures.ts';
import type { TraceFile } from './trace_file.ts';

/** Of the difference, what a signature may leave unexplained to be named at all; of one larger than the output, of the output. */
const MOST_LEFT = 0.1;

/** The mistake that a divergence looks like. */
export interface Cause {
  readonly cause: string;
  /** Which of the two traces made it. */
  readonly side: 'A' | 'B';
  /** Completes a sentence that begins with `side`. */
  readonly what: string;
  /** The op recomputed under this mistake against what the trace holds: relative RMS. */
  readonly relative_rms: number;
  /** Whether that is within the op's bound, so that the mistake explains everything. */
  readonly confirmed: boolean;
}

/**
 * Finds the known mistake that explains a divergence: each is made in a recomputation of the op from the inputs that the trace holds.
 * A is taken to be right where the traces alone cannot tell; where B is right, a mistake of A is found as well.
 * @param difference relative RMS between the traces
 * @param bound what rounding may do to the op
 */
export async function causeOf(
  op: TracedOp,
  ops: readonly TracedOp[],
  a: TraceFile,
  b: TraceFile,
  difference: number,
  bound: number,
): Promise<Cause | null> {
  const ofA = new Evidence(op, bound, ops, b, a);
  for (const [side, evidence] of [['B', new Evidence(op, bound, ops, a, b)] as const, ['A', ofA] as const]) {
    // A mistake too small to be told from none would explain a trace that is right.
    if (side === 'A' && ((await isRight(ofA)) || !(await mayBeRight(new Evidence(op, bound, ops, b, b))))) continue;
    for (const signatures of SIGNATURES[op.op] ?? []) {
      const causes: Cause[] = [];
      for (const signature of signatures) {
        const cause = await tried(signature, evidence);
        if (cause && (cause.relative_rms <= bound || cause.relative_rms <= MOST_LEFT * Math.min(1, difference))) {
          causes.push({ side, ...cause, confirmed: cause.relative_rms <= bound });
        }
      }
      const [best] = causes.sort((one, other) => one.relative_rms - other.relative_rms);
      if (best) return best;
    }
  }
  return null;
}

/**
 * Tells whether an op does right by its inputs in both traces, so that what differs came in with them. An error may grow beyond all measure in
 * a norm of something small, in a softmax, or in the state; here the op is recomputed from the inputs of each.
 * @param bound what rounding inside the op may do
 */
export async function followsFromInputs(
  op: TracedOp,
  ops: readonly TracedOp[],
  a: TraceFile,
  b: TraceFile,
  bound: number,
): Promise<boolean> {
  const sides = [new Evidence(op, bound, ops, a, b), new Evidence(op, bound, ops, b, a)];
  for (const recompute of recomputationsOf(op.op)) {
    if ((await isRecomputed(recompute, sides[0]!)) && (await isRecomputed(recompute, sides[1]!))) return true;
  }
  return false;
}

/** Whether the suspected implementation has, in any of the ways that a config may choose, what the release makes of its inputs. */
async function isRight(evidence: Evidence): Promise<boolean> {
  for (const recompute of recomputationsOf(evidence.op.op)) if (await isRecomputed(recompute, evidence)) return true;
  return false;
}

/**
 * Whether an implementation, held to itself, has what the release makes of its inputs with some weights, window or angles. What is an instance
 * of the op at no parameters is no measure for the other trace.
 */
async function mayBeRight(evidence: Evidence): Promise<boolean> {
  return recomputationsOf(evidence.op.op).length === 0 || (await isRight(evidence));
}

async function isRecomputed(recompute: Recomputation, evidence: Evidence): Promise<boolean> {
  const output = await unlessAbsent(recompute(evidence));
  return output !== null && relativeRms((await evidence.output('suspect')).data, output) <= evidence.bound;
}

async function unlessAbsent<T>(promise: Promise<T>): Promise<T | null> {
  try {
    return await promise;
  } catch (error) {
    if (error instanceof Absent) return null;
    throw error;
  }
}

async function tried({ cause, what, shows, predict }: Signature, evidence: Evidence): Promise<Omit<Cause, 'side' | 'confirmed'> | null> {
  const prediction = await unlessAbsent(predict(evidence));
  if (prediction === null) return null;
  const { output, found } = prediction instanceof Float64Array ? { output: prediction, found: null } : prediction;
  const { data } = shows === undefined ? await evidence.output('suspect') : await evidence.taken(shows);
  return { cause, what: found === null ? what : `${what}: ${found}`, relative_rms: relativeRms(data, output) };
}
