// The exports of the kernels' wasm module. Pointers are byte addresses in the imported memory; [begin, end) is the range of outputs to compute,
// so that several threads can share a call without changing a bit of its result.

export { add } from './add';
export { attention, kv_append } from './attention';
export { causal_conv1d } from './causal_conv1d';
export { copy_bf16, copy_f16, copy_f32, embedding_bf16, embedding_f32 } from './embedding';
export { gated_delta_rule_recurrent } from './gated_delta_rule';
export { gated_delta_rule_chunked } from './gated_delta_rule_chunked';
export { gdn_beta, gdn_gate } from './gdn_gate';
export { l2_norm } from './l2_norm';
export { linear_bf16, linear_f32, pack_bf16, pack_f16, pack_f32 } from './linear';
export { exp64, log64 } from './math';
export { rms_norm, rms_norm_gated } from './rms_norm';
export { rotary, rotary_table } from './rotary';
export { softmax } from './softmax';
export { swiglu } from './swiglu';
