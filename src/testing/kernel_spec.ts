import type fc from 'fast-check';
import type { KernelTensor } from '../kernel_calls.ts';
import type { Draw } from './arbitraries.ts';
import type { Bound } from './assert_close.ts';
import type { Params, Tensors } from './tensors.ts';

export type Outputs = Readonly<Record<string, KernelTensor>>;

/** One call of a kernel. */
export interface KernelCase<I extends Tensors = Tensors, P extends Params = Params> {
  readonly inputs: I;
  readonly params: P;
}

/** A case, and a number that a law takes for its choices: which token, which head, where to cut. It shrinks to 0. */
export type Example<I extends Tensors = Tensors, P extends Params = Params> = KernelCase<I, P> & { readonly at: number };

/** A kernel under test, as laws see it. */
export interface Port<I extends Tensors = Tensors, O extends Outputs = Outputs, P extends Params = Params> {
  /** Unit roundoff of the numbers that it computes in. */
  readonly u: number;
  run(inputs: I, params: P): Promise<O>;
  /** Within the bound of the truth, as the float64 reference computes it. @throws {Error} that names output and element */
  assertTrue(got: O, of: KernelCase<I, P>): void;
  /**
   * Two results for which the truth is the same: each may be off by the bound of the case.
   * @throws {Error} that names output and element
   */
  assertNear(got: Partial<O>, want: Partial<O>, bounds: KernelCase<I, P>): void;
  /** The same numbers; 0 and -0 are. @throws {Error} that names output and element */
  assertEqual(got: Partial<O>, want: Partial<O>): void;
}

/** What is true of a kernel whatever its inputs; `holds` throws where it is not. */
export interface Law<I extends Tensors = Tensors, O extends Outputs = Outputs, P extends Params = Params> {
  /** A sentence about the kernel. */
  readonly name: string;
  holds(port: Port<I, O, P>, example: Example<I, P>): Promise<void>;
}

/** A kernel of golden/README.md's table: its cases, what rounding may do to them, and its laws. */
export interface KernelSpec<I extends Tensors = Tensors, O extends Outputs = Outputs, P extends Params = Params> {
  /** @param draws The kinds of values that free inputs take. */
  cases(draws: readonly Draw[]): fc.Arbitrary<KernelCase<I, P>>;
  /** Shapes of the outputs. */
  outputs(inputs: I, params: P): Readonly<Record<keyof O & string, readonly number[]>>;
  /** How far from the truth a sound implementation in f32, in any order of summation, may be. @param u unit roundoff of f32 */
  bounds(example: KernelCase<I, P>, truth: O, u: number): Readonly<Record<keyof O & string, Bound>>;
  readonly laws: readonly Law<I, O, P>[];
}
