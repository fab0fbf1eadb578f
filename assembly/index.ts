// The exports of the kernels' wasm module. Pointers are byte addresses in the imported memory; [begin, end) is the range of outputs to compute,
// so that several threads can share a call without changing a bit of its result.

export { add } from './add';
export { attention, kv_append } from './attention';
export { causal_conv1d } from './causal_conv1d';
export { embedding_bf16, embedding_f32 } from './embedding';
export { gated_delta_rule_recurrent } from './gated_delta_rule';
export { gated_delta_rule_chunked } from './gated_delta_rule_chunked';
export { gdn_beta, gdn_gate } from './gdn_gate';
export { l2_norm } from './l2_norm';
export { f32_peak, i16_peak, memory_read } from './limits';
export { linear_bf16, linear_f32, linear_q4, linear_q8 } from './linear';
export { linear_group } from './linear_group';
export { linear_q4_integer, linear_q8_integer } from './linear_integer';
export { exp64, log64 } from './math';
export { pack, store_rows } from './pack';
export { rms_norm, rms_norm_gated } from './rms_norm';
export { rotary, rotary_table } from './rotary';
export { round_rows } from './round_rows';
export { set_scratch } from './scratch';
export { softmax } from './softmax';
export { swiglu } from './swiglu';
