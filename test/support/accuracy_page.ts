import type { Accuracy } from '../../src/verify.ts';
import type { Bf16Model, Bf16Op } from '../../src/verify_bf16.ts';

/** Accuracies of all kernels and models in one mode, and those of bf16 mode. */
export interface Figures {
  readonly strict: readonly Accuracy[];
  readonly fast: readonly Accuracy[];
  readonly bf16: readonly (Bf16Op | Bf16Model)[];
}

/** The tables of docs/accuracy.md by the names of their marks. */
export function tablesOf({ strict, fast, bf16 }: Figures): Record<string, string> {
  return {
    kernels: kernels(strict.filter(({ kind }) => kind === 'kernel')),
    models: models(
      strict.filter(({ kind }) => kind === 'model'),
      fast.filter(({ kind }) => kind === 'model'),
    ),
    bf16_ops: bf16Ops(bf16.filter((result) => result.kind === 'bf16_op')),
    bf16_models: bf16Models(bf16.filter((result) => result.kind === 'bf16_model')),
  };
}

/** What stands between two marks of a page. @throws {Error} when it has no such marks */
export function between(page: string, name: string): string {
  const [begin, end] = [`<!-- ${name} -->\n`, `<!-- /${name} -->\n`];
  const [from, to] = [page.indexOf(begin), page.indexOf(end)];
  if (from < 0 || to < from) throw new Error(`the page has no marks "${name}"`);
  return page.slice(from + begin.length, to);
}

function kernels(results: readonly Accuracy[]): string {
  const names = [...new Set(results.map(({ name }) => name.split('/')[0]!))];
  const row = (name: string, cases: readonly Accuracy[]) => {
    const worst = cases.reduce((a, b) => (b.ratio > a.ratio ? b : a));
    const ratios = cases.map(({ ratio }) => ratio);
    const numbers = [median(ratios), worst.ratio, median(cases.map(({ rms_ratio }) => rms_ratio))].map(fixed);
    return [name, `${cases.length}`, ...numbers, `\`${worst.name}\``];
  };
  const rows = names.map((kernel) =>
    row(
      `\`${kernel}\``,
      results.filter(({ name }) => name.startsWith(`${kernel}/`)),
    ),
  );
  return table(['kernel', 'cases', 'ratio, median', 'ratio, largest', 'rms, median', 'largest in'], [...rows, row('all', results)]);
}

function models(strict: readonly Accuracy[], fast: readonly Accuracy[]): string {
  const ratioOfFast = new Map(fast.map(({ name, ratio }) => [name, ratio]));
  const rows = strict.map(({ name, error, pytorch_error, ratio, rms_ratio, greedy }) => [
    `\`${name}\``,
    error.toExponential(1),
    pytorch_error.toExponential(1),
    fixed(ratio),
    fixed(rms_ratio),
    `${greedy!.agreed}/${greedy!.compared}`,
    fixed(ratioOfFast.get(name)!),
  ]);
  const ratios = [strict.map(({ ratio }) => ratio), strict.map(({ rms_ratio }) => rms_ratio), fast.map(({ ratio }) => ratio)] as const;
  const summary = (name: string, of: (values: readonly number[]) => number) => {
    const [ratio, rms, ofFast] = ratios.map((values) => fixed(of(values))) as [string, string, string];
    return [name, '', '', ratio, rms, '', ofFast];
  };
  const largest = (values: readonly number[]) => Math.max(...values);
  return table(
    ['model', 'error', "PyTorch's", 'ratio', 'rms', 'greedy', 'ratio, fast'],
    [...rows, summary('median', median), summary('largest', largest)],
  );
}

function bf16Ops(results: readonly Bf16Op[]): string {
  const rows = results.map(({ name, values, equal, error }) => {
    return [`\`${name}\``, `${values}`, percent(equal / values), error === 0 ? '' : error.toExponential(1)];
  });
  return table(['op', 'values', 'equal bits', 'relative error of the others'], rows);
}

function bf16Models(results: readonly Bf16Model[]): string {
  const rows = results.map(({ name, values, equal, distance, float32_distance, ratio }) => {
    return [`\`${name}\``, percent(equal / values), distance.toExponential(1), float32_distance.toExponential(1), ratio.toFixed(3)];
  });
  return table(['model', 'equal bits', 'distance', "float32's", 'ratio'], rows);
}

function table(head: readonly string[], rows: readonly (readonly string[])[]): string {
  return [head, head.map(() => '---'), ...rows].map((cells) => `| ${cells.join(' | ')} |\n`).join('');
}

function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  return (sorted[(sorted.length - 1) >> 1]! + sorted[sorted.length >> 1]!) / 2;
}

function fixed(value: number): string {
  return value.toFixed(2);
}

function percent(share: number): string {
  return `${(100 * share).toFixed(3)}%`;
}
