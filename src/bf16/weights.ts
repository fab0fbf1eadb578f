import type { Parameter } from '../model/weights.ts';
import { bf16, f32 } from './rounding.ts';

/**
 * Rounds loaded parameters as from_pretrained(dtype=bfloat16) does: all but A_log, which the release makes in float32 and so keeps as stored.
 * HF: OlmoHybridGatedDeltaNet.__init__
 */
export function castWeights(parameters: readonly Parameter[]): void {
  for (const parameter of parameters) {
    const { data } = parameter.kind === 'matrix' ? parameter.weight : parameter.tensor;
    const round = parameter.name.endsWith('.A_log') ? f32 : bf16;
    for (let i = 0; i < data.length; i++) data[i] = round(data[i]!);
  }
}
