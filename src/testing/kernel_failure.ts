import type { KernelName, KernelTensor } from '../kernel_calls.ts';
import type { Example } from './kernel_spec.ts';
import { elements } from './tensors.ts';

/** More elements than these are cut off. */
const MOST_PRINTED = 64;

/** A law that a kernel broke, and its smallest case that was found. */
export interface BrokenLaw {
  readonly law: string;
  /** What was wrong: output, element, both values. */
  readonly what: string;
  readonly example: Example;
  /** With `law` and `path`, options of `checkKernel` that run this case again. */
  readonly seed: number;
  readonly path: string;
}

/** Thrown by `checkKernel`; its message shows the first broken law with all tensors of its smallest case. */
export class KernelFailure extends Error {
  readonly kernel: KernelName;
  /** In the order of the laws; the comparison with the reference comes first. */
  readonly broken: readonly BrokenLaw[];

  constructor(kernel: KernelName, adapter: string, broken: readonly BrokenLaw[], kept: readonly string[]) {
    const [first, ...others] = broken;
    const { law, what, example, seed, path } = first!;
    const lines = [
      `${adapter}: ${kernel} breaks the law "${law}": ${what}`,
      ...Object.entries(example.inputs).map(([name, x]) => `  ${name} ${shown(x!)}`),
      `  params ${JSON.stringify(example.params)}, at ${example.at}`,
      `Run this case again: checkKernel('${kernel}', adapter, ${JSON.stringify({ law, seed, path })})`,
      ...others.map((other) => `Broken as well: "${other.law}": ${other.what}; ${JSON.stringify({ seed: other.seed, path: other.path })}`),
      ...(kept.length > 0 ? [`Kept: ${kept.map((name) => `"${name}"`).join(', ')}`] : []),
    ];
    super(lines.join('\n'));
    this.name = 'KernelFailure';
    this.kernel = kernel;
    this.broken = broken;
  }
}

/** `[2, 3] = [[1, 2, 3], [4, 5, 6]]`. */
function shown({ shape, data }: KernelTensor): string {
  const whole = elements(shape) <= MOST_PRINTED;
  return `[${shape.join(', ')}] = ${whole ? nested(shape, 0, data) : `[${Array.from(data.subarray(0, 8), number).join(', ')}, …]`}`;
}

function nested(shape: readonly number[], begin: number, data: ArrayLike<number>): string {
  const [n, ...rest] = shape;
  if (n === undefined) return number(data[begin]!);
  return `[${Array.from({ length: n }, (_, i) => nested(rest, begin + i * elements(rest), data)).join(', ')}]`;
}

function number(x: number): string {
  return Object.is(x, -0) ? '-0' : String(x);
}
