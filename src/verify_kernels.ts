import { callKernel, type KernelName, type KernelTensor } from './kernel_calls.ts';
import type { Bank } from './runtime/bank.ts';
import type { FloatArray } from './runtime/tensor.ts';
import { type ErrorRatio, errorRatio, type Golden, tensorOf } from './verify_golden.ts';

/**
 * Calls a kernel with the inputs of a golden.
 * @param m fresh buffers are taken from it
 * @returns the error ratio of the output with the largest one
 * @throws {ArgumentError} when the golden lacks an input, {CheckpointError} when it lacks an output
 */
export function verifyKernel(m: Bank, kernel: KernelName, golden: Golden): ErrorRatio {
  const inputs = Object.fromEntries(golden.tensors) as unknown as Record<string, KernelTensor>; // of floats, all that a kernel takes
  const outputs = callKernel(m, kernel, inputs, JSON.parse(golden.metadata.get('params') ?? '{}'));
  const ratios = Object.entries(outputs).map(([name, output]) => {
    const truth = golden.tensors.has(`${name}.truth`) ? `${name}.truth` : name; // copies have no truth of their own
    return errorRatio(output, floats(golden, name), floats(golden, truth));
  });
  return ratios.reduce((a, b) => (b.ratio > a.ratio ? b : a));
}

function floats(golden: Golden, name: string): FloatArray {
  return tensorOf(golden, name).data as FloatArray;
}
