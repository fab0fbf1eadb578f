import type { Bf16Model, Bf16Op } from '../verify_bf16.ts';

/** What stands above the lines of one kind. */
export function bf16Heading(kind: (Bf16Op | Bf16Model)['kind']): string {
  return kind === 'bf16_op' ? row('op', 'values', 'equal', 'others within') : row('logits', 'equal', 'distance', "float32's", 'ratio');
}

/** One op or model. */
export function bf16Line(result: Bf16Op | Bf16Model): string {
  const equal = `${((100 * result.equal) / result.values).toFixed(3)}%`;
  if (result.kind === 'bf16_op') {
    return row(`  ${result.name}`, `${result.values}`, equal, result.error === 0 ? '' : result.error.toExponential(1));
  }
  const { name, distance, float32_distance, ratio } = result;
  return row(`  ${name}`, equal, distance.toExponential(1), float32_distance.toExponential(1), ratio.toFixed(3));
}

function row(name: string, ...cells: readonly string[]): string {
  return `${name.padEnd(30)}${cells.map((cell, i) => cell.padStart(i === 2 ? 15 : 11)).join('')}`.trimEnd();
}
