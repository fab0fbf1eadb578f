import type { Bank } from '../runtime/bank.ts';
import type { Matrix, Tensor, WeightFormat } from '../runtime/tensor.ts';

/** A place that a loader has to fill. `shape` is the tensor's in the checkpoint. */
export type Parameter = { readonly name: string; readonly shape: readonly number[]; readonly bank: Bank } & (
  | { readonly kind: 'matrix'; readonly weight: Matrix }
  | { readonly kind: 'vector' | 'convolution'; readonly tensor: Tensor }
);

/** Says in which format the checkpoint's matrix of this name will lie in memory. */
export type Formats = (name: string) => WeightFormat;

/** Declares the parameters of a module under its HF path. The constructors of a model list all that it needs, before anything is read. */
export class Weights {
  readonly parameters: Parameter[];
  /** Path of the module; empty for the model itself. */
  readonly module: string;
  private readonly formats: Formats;

  constructor(formats: Formats, parameters: Parameter[] = [], module = '') {
    this.formats = formats;
    this.parameters = parameters;
    this.module = module;
  }

  /** The weights of a submodule. */
  scope(name: string): Weights {
    return new Weights(this.formats, this.parameters, this.path(name));
  }

  /** The full name of a parameter or of an op's output. */
  path(name: string): string {
    return this.module ? `${this.module}.${name}` : name;
  }

  /** Weight [N, K] of a product. */
  matrix(bank: Bank, name: string, N: number, K: number): Matrix {
    return this.declare(name, bank, bank.matrix(N, K, this.formats(this.path(name))));
  }

  /** Weight [V, D] of an embedding. */
  table(bank: Bank, name: string, V: number, D: number): Matrix {
    return this.declare(name, bank, bank.table(V, D, this.formats(this.path(name))));
  }

  /** A vector [D], f32 in memory. */
  vector(bank: Bank, name: string, D: number): Tensor {
    const tensor = bank.tensor(1, D);
    this.parameters.push({ name: this.path(name), shape: [D], bank, kind: 'vector', tensor });
    return tensor;
  }

  /** Weight [C, 1, W] of a depthwise convolution; in memory [W, C], f32. */
  convolution(bank: Bank, name: string, C: number, W: number): Tensor {
    const tensor = bank.tensor(W, C);
    this.parameters.push({ name: this.path(name), shape: [C, 1, W], bank, kind: 'convolution', tensor });
    return tensor;
  }

  private declare(name: string, bank: Bank, weight: Matrix): Matrix {
    this.parameters.push({ name: this.path(name), shape: [weight.N, weight.K], bank, kind: 'matrix', weight });
    return weight;
  }
}
