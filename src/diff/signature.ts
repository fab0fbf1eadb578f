import type { Evidence } from './evidence.ts';

/** The output of an op under a mistake, and what is to be said besides, such as a number that was found on the way. */
export type Prediction = Float64Array | { readonly output: Float64Array; readonly found: string };

/** A mistake, by what it does to the output of an op. */
export interface Signature {
  /** A name for programs. */
  readonly cause: string;
  /** Completes a sentence that begins with the trace's name. */
  readonly what: string;
  /** The op of the same layer that `predict` is about, if it is not the one that diverges first. */
  readonly shows?: string;
  /**
   * Computes the output from what the suspected implementation put in; small weights are solved for in the right trace.
   * @returns null when the mistake is out of the question
   * @throws {Absent} when the traces do not hold what it takes
   */
  predict(evidence: Evidence): Promise<Prediction | null>;
}
