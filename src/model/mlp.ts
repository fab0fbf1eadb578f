import type { OlmoHybridConfig } from '../config.ts';
import type { Bank } from '../runtime/bank.ts';
import { done, linear, linears, type Op, swiglu } from './nn.ts';
import type { Weights } from './weights.ts';

/** SwiGLU: down_proj(silu(gate_proj(x)) * up_proj(x)). HF: OlmoHybridMLP. */
export function MLP(cfg: OlmoHybridConfig, w: Weights, m: Bank): Op {
  const { hidden_size: D, intermediate_size: F } = cfg;
  const project = linears(m, w, D, { gate_proj: F, up_proj: F });
  const down_proj = linear(m, w, 'down_proj', D, F);
  const act = swiglu(m);
  return (x) => {
    const { gate_proj, up_proj } = project(x);
    return done(m, w.module, down_proj(act(gate_proj, up_proj))); // [T, D]
  };
}
