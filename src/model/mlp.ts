import type { OlmoHybridConfig } from '../config.ts';
import type { Bank } from '../runtime/bank.ts';
import { done, linear, type Op, swiglu } from './nn.ts';
import type { Weights } from './weights.ts';

/** SwiGLU: down_proj(silu(gate_proj(x)) * up_proj(x)). HF: OlmoHybridMLP. */
export function MLP(cfg: OlmoHybridConfig, w: Weights, m: Bank): Op {
  const { hidden_size: D, intermediate_size: F } = cfg;
  const gate_proj = linear(m, w, 'gate_proj', F, D);
  const up_proj = linear(m, w, 'up_proj', F, D);
  const down_proj = linear(m, w, 'down_proj', D, F);
  const act = swiglu(m);
  const path = w.path('').slice(0, -1); // of the module itself
  return (x) => done(m, path, down_proj(act(gate_proj(x), up_proj(x)))); // [T, D]
}
