import type { KernelName, KernelTensor } from '../kernel_calls.ts';
import type { FloatArray } from '../runtime/tensor.ts';
import type { Params } from './tensors.ts';

/** One call of a kernel under test. */
export interface KernelRequest {
  readonly kernel: KernelName;
  /** By the names of golden/README.md's table; f32 values, unless the kernel is checked as `f64`. One that may be absent may be. */
  readonly inputs: Readonly<Record<string, KernelTensor>>;
  readonly params: Params;
  /** Shapes of the outputs that are asked for. */
  readonly outputs: Readonly<Record<string, readonly number[]>>;
}

/** What a kernel gave: the elements of each output, row-major. */
export type KernelResults = Readonly<Record<string, FloatArray>>;

/** Thrown by an adapter whose kernel did not answer in time. To ask again would take as long: `checkKernel` ends with it. */
export class NoAnswer extends Error {}

/** The way to a kernel under test. */
export interface KernelAdapter {
  /** What messages call it. */
  readonly name: string;
  run(request: KernelRequest): KernelResults | Promise<KernelResults>;
}

/**
 * A kernel that is a JavaScript function.
 * @param f gets the inputs by name, the scalars, and the whole request; it must leave the inputs as they are
 */
export function functionAdapter(
  f: (inputs: KernelRequest['inputs'], params: Params, request: KernelRequest) => KernelResults | Promise<KernelResults>,
  name = f.name || 'function',
): KernelAdapter {
  return { name, run: (request) => f(request.inputs, request.params, request) };
}
