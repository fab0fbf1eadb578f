import fc from 'fast-check';
import { ArgumentError } from '../errors.ts';
import { callKernel, type KernelName, type KernelOutputs, type KernelTensor, kernelNames } from '../kernel_calls.ts';
import { ReferenceBank } from '../runtime/reference_bank.ts';
import { type KernelAdapter, type KernelRequest, NoAnswer } from './adapter.ts';
import { ALL_DRAWS, type Draw } from './arbitraries.ts';
import { type Bound, shareOfBound, U32, U64 } from './assert_close.ts';
import { type BrokenLaw, KernelFailure } from './kernel_failure.ts';
import type { Example, KernelCase, KernelSpec, Law, Outputs, Port } from './kernel_spec.ts';
import { KERNELS } from './kernels/index.ts';

export interface CheckOptions {
  /** Cases for each law. Default 100. */
  readonly runs?: number | undefined;
  /** One law, by its name. Default: all. */
  readonly law?: string | undefined;
  /** Where the cases come from. Default: another one each time. */
  readonly seed?: number | undefined;
  /** With `law` and `seed`: one case, as a failure names it. */
  readonly path?: string | undefined;
  /** Whether to look for the smallest case of each law that is broken. Default true; without it a check takes the first. */
  readonly shrink?: boolean | undefined;
  /** Kinds of values for the inputs that take any. Default: all; leave out `tiny` where denormals are flushed on the way in. */
  readonly draws?: readonly Draw[] | undefined;
  /** What the kernel computes in: its bounds are those of an implementation in this precision. Default `f32`. */
  readonly precision?: 'f32' | 'f64' | undefined;
}

/** What held. */
export interface KernelReport {
  readonly kernel: KernelName;
  readonly laws: readonly string[];
  /** Cases of each law. */
  readonly runs: number;
  readonly seed: number;
  /** The largest error against the reference, as a part of its bound. */
  readonly largest_share: number;
}

/** What every kernel has to do before all other laws. */
const EQUALS_REFERENCE: Law = {
  name: 'equals the float64 reference',
  async holds(port, { inputs, params }) {
    port.assertTrue(await port.run(inputs, params), { inputs, params });
  },
};

/** The laws of a kernel, by their names. */
export function lawsOf(kernel: KernelName): string[] {
  return [EQUALS_REFERENCE, ...KERNELS[kernel].laws].map(({ name }) => name);
}

/**
 * Holds a kernel to the float64 reference and to its laws, on shapes and values that have hidden mistakes before.
 * @param kernel one of golden/README.md's table
 * @throws {KernelFailure} with the smallest case found for each law that is broken; {ArgumentError} for options that make no sense, or when
 * the adapter cannot reach its kernel.
 */
export async function checkKernel(kernel: KernelName, adapter: KernelAdapter, options: CheckOptions = {}): Promise<KernelReport> {
  checkNames(kernel, options);
  const spec = KERNELS[kernel];
  const laws = chosen(kernel, options);
  const port = new AdapterPort(kernel, spec, adapter, options.precision === 'f64' ? U64 : U32);
  const seed = options.seed ?? anySeed();
  const runs = options.runs ?? 100;
  const examples = fc.tuple(spec.cases(options.draws ?? ALL_DRAWS), fc.nat(9999)).map(([one, at]): Example => ({ ...one, at }));

  const broken: BrokenLaw[] = [];
  const tried: string[] = [];
  for (const law of laws) {
    const property = fc.asyncProperty(examples, (example) => {
      fc.pre(port.silent === null); // each smaller case would take as long again
      return law.holds(port, example);
    });
    const endOnFailure = options.path !== undefined || options.shrink === false;
    const run = await fc.check(property, { numRuns: runs, seed, endOnFailure, ...(options.path !== undefined && { path: options.path }) });
    if (port.unreachable) throw port.unreachable;
    tried.push(law.name);
    if (!run.failed) continue;
    const what = run.errorInstance instanceof Error ? run.errorInstance.message : String(run.errorInstance);
    broken.push({ law: law.name, what, example: run.counterexample![0], seed: run.seed, path: run.counterexamplePath! });
    if (port.silent) break;
  }
  const names = laws.map(({ name }) => name);
  if (broken.length === 0) return { kernel, laws: names, runs, seed, largest_share: port.largestShare };
  const kept = tried.filter((name) => broken.every(({ law }) => law !== name));
  throw new KernelFailure(kernel, adapter.name, broken, kept);
}

/** What JavaScript does not check. @throws {ArgumentError} */
function checkNames(kernel: string, { precision = 'f32' }: CheckOptions): void {
  const fix = 'Take one of these.';
  if (!(kernelNames as readonly string[]).includes(kernel)) {
    throw new ArgumentError({ where: 'kernel', expected: kernelNames.join(', '), found: `"${kernel}"`, fix });
  }
  if (precision !== 'f32' && precision !== 'f64') {
    throw new ArgumentError({
      where: 'precision',
      expected: 'f32 or f64, the two that there are bounds for',
      found: `"${precision as string}"`,
      fix,
    });
  }
}

function chosen(kernel: KernelName, { law, seed, path }: CheckOptions): readonly Law[] {
  const all = [EQUALS_REFERENCE, ...KERNELS[kernel].laws];
  if (path !== undefined && (law === undefined || seed === undefined)) {
    const fix = 'Give all three as the failure named them.';
    throw new ArgumentError({ where: 'path', expected: 'a law and a seed that it belongs to', found: 'neither or one', fix });
  }
  if (law === undefined) return all;
  const one = all.find(({ name }) => name === law);
  if (one) return [one];
  const expected = `a law of ${kernel}: ${all.map(({ name }) => `"${name}"`).join(', ')}`;
  throw new ArgumentError({ where: 'law', expected, found: `"${law}"`, fix: 'Copy the name from the list.' });
}

/** One that fast-check chooses, so that its global settings hold. */
function anySeed(): number {
  const nothing = fc.property(fc.constant(0), () => {});
  return fc.check(nothing, { numRuns: 1 }).seed;
}

/** What the reference makes of a case, in float64. */
function truthOf(kernel: KernelName, spec: KernelSpec, { inputs, params }: KernelCase): Outputs {
  return shapedAs(spec.outputs(inputs, params), callKernel(new ReferenceBank(1), kernel, inputs, params));
}

class AdapterPort implements Port {
  readonly u: number;
  largestShare = 0;
  /** Why the adapter has no kernel to ask; no fault of the kernel. */
  unreachable: ArgumentError | null = null;
  /** Why there is no more to be asked. */
  silent: NoAnswer | null = null;
  private readonly kernel: KernelName;
  private readonly spec: KernelSpec;
  private readonly adapter: KernelAdapter;

  constructor(kernel: KernelName, spec: KernelSpec, adapter: KernelAdapter, u: number) {
    this.kernel = kernel;
    this.spec = spec;
    this.adapter = adapter;
    this.u = u;
  }

  async run(inputs: KernelCase['inputs'], params: KernelCase['params']): Promise<Outputs> {
    const given = this.given(inputs);
    const outputs = this.spec.outputs(given, params);
    try {
      return shapedAs(outputs, await this.adapter.run({ kernel: this.kernel, inputs: given, params, outputs }));
    } catch (error) {
      if (error instanceof ArgumentError) this.unreachable ??= error;
      if (error instanceof NoAnswer) this.silent ??= error;
      throw error;
    }
  }

  assertTrue(got: Outputs, example: KernelCase): void {
    const one = { inputs: this.given(example.inputs), params: example.params };
    const truth = truthOf(this.kernel, this.spec, one);
    this.largestShare = Math.max(this.largestShare, this.compare(got, truth, this.spec.bounds(one, truth, this.u), 1));
  }

  assertNear(got: Partial<Outputs>, want: Partial<Outputs>, example: KernelCase): void {
    const one = { inputs: this.given(example.inputs), params: example.params };
    this.compare(got, want, this.spec.bounds(one, truthOf(this.kernel, this.spec, one), this.u), 2);
  }

  assertEqual(got: Partial<Outputs>, want: Partial<Outputs>): void {
    this.compare(got, want, Object.fromEntries(Object.keys(want).map((name) => [name, { relative: 0, absolute: 0 }])), 1);
  }

  /** Fresh arrays, since a kernel may work in place; of numbers that it can hold. */
  private given(inputs: KernelCase['inputs']): KernelRequest['inputs'] {
    const Floats = this.u < U32 ? Float64Array : Float32Array;
    const present = Object.entries(inputs).filter((entry): entry is [string, KernelTensor] => entry[1] !== undefined);
    return Object.fromEntries(present.map(([name, { shape, data }]) => [name, { shape, data: Floats.from(data) }]));
  }

  private compare(got: Partial<Outputs>, want: Partial<Outputs>, bounds: Readonly<Record<string, Bound>>, times: number): number {
    let most = 0;
    for (const [name, { shape, data }] of Object.entries(want) as [string, KernelTensor][]) {
      const { relative, of = data, absolute } = bounds[name]!;
      const bound = { relative: times * relative, of, ...(absolute !== undefined && { absolute: times * absolute }) };
      const { share, worst } = shareOfBound(got[name]!.data, data, bound);
      if (!(share <= 1))
        throw new Error(
          `${name}${place(shape, worst)} is ${got[name]!.data[worst]}, not ${data[worst]}: ${share.toPrecision(3)} times what rounding may do`,
        );
      most = Math.max(most, share);
    }
    return most;
  }
}

function shapedAs(shapes: Readonly<Record<string, readonly number[]>>, results: KernelOutputs): Outputs {
  const outputs = Object.entries(shapes).map(([name, shape]): [string, KernelTensor] => {
    const data = results[name];
    const length = shape.reduce((product, n) => product * n, 1);
    if (data?.length === length) return [name, { shape, data }];
    throw new Error(`${name} should be [${shape.join(', ')}], ${length} elements; found ${data ? `${data.length}` : 'nothing'}`);
  });
  return Object.fromEntries(outputs);
}

/** `[1][0][3]`, from the index of an element. */
function place(shape: readonly number[], index: number): string {
  const indices: number[] = [];
  let rest = index;
  for (const n of shape.toReversed()) {
    indices.unshift(rest % n);
    rest = Math.floor(rest / n);
  }
  return indices.map((i) => `[${i}]`).join('');
}
