import type { KernelName } from '../../kernel_calls.ts';
import type { KernelSpec } from '../kernel_spec.ts';
import { attention } from './attention.ts';
import { causal_conv1d } from './causal_conv1d.ts';
import { gated_delta_rule } from './gated_delta_rule.ts';
import { gdn_beta, gdn_gate, swiglu } from './gates.ts';
import { linear } from './linear.ts';
import { l2_norm, rms_norm, rms_norm_gated, softmax } from './norms.ts';
import { rotary } from './rotary.ts';

/** What the kit knows of each kernel; golden/README.md has the table of their inputs, outputs and params. */
export const KERNELS = {
  linear,
  rms_norm,
  rms_norm_gated,
  l2_norm,
  rotary,
  causal_conv1d,
  gdn_gate,
  gdn_beta,
  gated_delta_rule,
  attention,
  swiglu,
  softmax,
} as unknown as Readonly<Record<KernelName, KernelSpec>>;
