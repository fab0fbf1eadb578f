export { bf16Kernels } from './bf16/index.ts';
export { referenceKernels } from './reference/index.ts';
export type { Bank, Mode, Tap } from './runtime/bank.ts';
export {
  type AttentionShape,
  chunkedScratch,
  type DeltaRuleShape,
  type Kernels,
  type KVFormat,
  kvWords,
  type LinearGroup,
  type Product,
} from './runtime/kernels.ts';
export { ReferenceBank } from './runtime/reference_bank.ts';
export type { FloatArray, Ids, Matrix, Tensor, WeightDtype, WeightFormat } from './runtime/tensor.ts';
