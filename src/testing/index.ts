export type { FloatArray } from '../runtime/tensor.ts';
export { type KernelName, type KernelTensor, kernelNames } from '../kernel_calls.ts';
export { functionAdapter, type KernelAdapter, type KernelRequest, type KernelResults } from './adapter.ts';
export {
  anyDecays,
  anyDirections,
  anyStrengths,
  anyUniform,
  anyValues,
  cuts,
  type Draw,
  decays,
  directions,
  distinct,
  drawn,
  extent,
  extents,
  type Maker,
  size,
  strengths,
  tokens,
  uniform,
  type Values,
  values,
} from './arbitraries.ts';
export { assertClose, assertSame, type Bound, type Numbers, shareOfBound } from './assert_close.ts';
export { type CheckOptions, checkKernel, type KernelReport, lawsOf } from './check_kernel.ts';
export { type BrokenLaw, KernelFailure } from './kernel_failure.ts';
export type { Example, KernelCase } from './kernel_spec.ts';
export { type SubprocessAdapter, type SubprocessOptions, subprocessAdapter } from './subprocess_adapter.ts';
export type { Params, Tensors } from './tensors.ts';
export { type WasmCall, type WasmOptions, wasmAdapter } from './wasm_adapter.ts';
