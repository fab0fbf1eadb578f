import type { WeightFormat } from '../runtime/tensor.ts';
import type { Placement } from './placement.ts';

/** How many matrices lie in memory in each format, in the order of the first of each. */
export function formatCounts({ parameters }: Placement): Partial<Record<WeightFormat, number>> {
  const counts: Partial<Record<WeightFormat, number>> = {};
  for (const parameter of parameters) {
    if (parameter.kind === 'matrix') counts[parameter.weight.format] = (counts[parameter.weight.format] ?? 0) + 1;
  }
  return counts;
}
