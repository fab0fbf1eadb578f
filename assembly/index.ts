// The exports of the kernels' wasm module. Pointers are byte addresses in the imported memory; [begin, end) is the range of outputs to compute,
// so that several threads can share a call without changing a bit of its result.

export { add } from './add';
export { attention } from './attention';
export { byte_dot_kind } from './byte_dots';
export { causal_conv1d } from './causal_conv1d';
export { embedding_bf16, embedding_f32 } from './embedding';
export { gated_delta_rule_recurrent } from './gated_delta_rule';
export { gated_delta_rule_chunked } from './gated_delta_rule_chunked';
export { gdn_beta, gdn_gate } from './gdn_gate';
export { kv_append } from './kv_cache';
export { l2_norm } from './l2_norm';
export { f32_peak, i16_peak, i8_peak, memory_read } from './limits';
export { linear_bf16, linear_f32, linear_q4, linear_q8 } from './linear';
export { linear_group } from './linear_group';
export { linear_q4_integer, linear_q8_integer } from './linear_integer';
// Called by others here, and exported for the optimiser alone, which must not make one function of them: V8 runs short of registers in it (q4 rows 0.77x).
export { f32_wide, i16_wide, i8_wide } from './limits';
export { rows_q4, rows_q4_bytes, rows_q8 } from './linear_integer';
export { exp32, exp64, log64 } from './math';
export { pack, store_rows } from './pack';
export { rms_norm, rms_norm_gated } from './rms_norm';
export { rotary, rotary_table } from './rotary';
export { round_rows } from './round_rows';
export { set_scratch } from './scratch';
export { set_wide } from './simd';
export { softmax } from './softmax';
export { swiglu } from './swiglu';
