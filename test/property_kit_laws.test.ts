import { expect, test } from 'vitest';
import { callKernel, type KernelName, type KernelOutputs } from '../src/kernel_calls.ts';
import { referenceKernels } from '../src/reference/index.ts';
import { ReferenceBank } from '../src/runtime/reference_bank.ts';
import { checkKernel, functionAdapter, KernelFailure, type KernelRequest, kernelNames, lawsOf } from '../src/testing/index.ts';
import { KERNEL_MUTANTS } from './gallery/kernel_mutants.ts';

type Inputs = KernelRequest['inputs'];

/** What is done to the reference, to see which laws notice. */
type Fault = (run: (inputs: Inputs) => KernelOutputs, request: KernelRequest) => KernelOutputs;

/** Each output changed element by element, row-major in rows of `cols`. */
function changed(change: (y: Float64Array, i: number, cols: number) => number): Fault {
  return (run, { inputs, outputs }) => {
    const results = Object.entries(run(inputs)).map(([name, data]): [string, Float64Array] => {
      const y = Float64Array.from(data);
      return [name, y.map((_, i) => change(y, i, y.length / outputs[name]![0]!))];
    });
    return Object.fromEntries(results);
  };
}

/** Every element of an input changed, if there is one of this name. */
function given(name: string, change: (x: number) => number): Fault {
  return (run, { inputs }) => {
    const input = inputs[name];
    return run(input ? { ...inputs, [name]: { ...input, data: Float64Array.from(input.data, change) } } : inputs);
  };
}

const FAULTS: Readonly<Record<string, Fault>> = {
  'a row takes from the one before': changed((y, i, cols) => y[i]! + 0.01 * (y[i - cols] ?? 0)),
  'a row takes from the one after': changed((y, i, cols) => y[i]! + 0.01 * (y[i + cols] ?? 0)),
  'the first column is larger': changed((y, i, cols) => y[i]! * (i % cols === 0 ? 1.01 : 1)),
  'a square is added': changed((y, i) => y[i]! + 0.01 * y[i]! ** 2),
  'a constant is added': changed((y, i) => y[i]! + 0.01),
  'dt_bias counts twice': given('dt_bias', (x) => 2 * x),
  'x beyond 100 is cut off': given('x', (x) => Math.max(-100, Math.min(100, x))),
};

/** Laws that the reference breaks with a fault, or with kernels of its own. */
async function broken(kernel: KernelName, fault: Fault, kernels = referenceKernels): Promise<string[]> {
  const run = (inputs: Inputs, { params }: KernelRequest) => callKernel(new ReferenceBank(1, kernels), kernel, inputs, params);
  const adapter = functionAdapter((_, __, request) => fault((inputs) => run(inputs, request), request));
  const thrown: unknown = await checkKernel(kernel, adapter, { seed: 5, runs: 12, shrink: false }).catch((error: unknown) => error);
  return thrown instanceof KernelFailure ? thrown.broken.map(({ law }) => law) : [];
}

// A law that nothing breaks would be there for show.
test.each(kernelNames)('%s: each law is broken by some mistake', async (kernel) => {
  const unbroken = new Set(lawsOf(kernel));
  for (const { kernels } of KERNEL_MUTANTS.filter((mutant) => mutant.kernel === kernel)) {
    const mistaken = { ...referenceKernels, ...kernels!(referenceKernels, () => undefined, undefined as never) };
    for (const law of await broken(kernel, (run, { inputs }) => run(inputs), mistaken)) unbroken.delete(law);
  }
  for (const fault of Object.values(FAULTS)) {
    if (unbroken.size === 0) break;
    for (const law of await broken(kernel, fault)) unbroken.delete(law);
  }
  expect([...unbroken]).toEqual([]);
});
