import { readdir, readFile } from 'node:fs/promises';
import { describe, expect, test } from 'vitest';
import { bytesSource } from '../../src/checkpoint/byte_source.ts';
import { readSafetensors, readTensor } from '../../src/checkpoint/safetensors.ts';
import type { FloatArray } from '../../src/runtime/tensor.ts';
import type { Values } from './arbitraries.ts';
import { assertErrorRatio, assertRelative } from './assert_close.ts';
import { type Implementation, reference, wasm } from './workbench.ts';

const KERNELS = new URL('../../golden/kernels/', import.meta.url);

/** A tensor of a file, [first dimension, all others]; a vector is one row. */
export interface GoldenTensor extends Values {
  readonly shape: readonly number[];
  readonly dtype: string;
}

/** One call of one of the release's functions: golden/README.md names the tensors. */
export interface KernelGolden {
  readonly name: string;
  readonly params: Readonly<Record<string, unknown>>;
  readonly tensors: ReadonlyMap<string, GoldenTensor>;
  /** The tensor of this name, which the file must have. */
  readonly of: (name: string) => GoldenTensor;
}

/** Every case in golden/kernels/`kernel`. */
export async function kernelGoldens(kernel: string): Promise<KernelGolden[]> {
  const files = (await readdir(new URL(kernel, KERNELS))).filter((file) => file.endsWith('.safetensors')).sort();
  return Promise.all(files.map((file) => readGolden(`${kernel}/${file}`)));
}

async function readGolden(path: string): Promise<KernelGolden> {
  const { metadata, tensors: entries } = await readSafetensors(bytesSource(path, await readFile(new URL(path, KERNELS))));
  const tensors = new Map<string, GoldenTensor>();
  for (const [name, entry] of entries) {
    const { shape, dtype } = entry;
    const data = (await readTensor(entry)) as FloatArray;
    const rows = shape.length > 1 ? shape[0]! : 1;
    tensors.set(name, { data, rows, cols: data.length / rows, shape, dtype });
  }
  return {
    name: metadata.get('case')!,
    params: JSON.parse(metadata.get('params')!) as Record<string, unknown>,
    tensors,
    of(name) {
      const tensor = tensors.get(name);
      if (!tensor) throw new Error(`${path} has no tensor ${name}`);
      return tensor;
    },
  };
}

export interface GoldenOptions {
  /** Largest error of the reference, as a part of the largest true value. Default 1e-12: rounding of f64 sums over a few hundred terms. */
  readonly reference?: number;
  /** Which of the cases count. Default: all. */
  readonly when?: (golden: KernelGolden) => boolean;
}

/**
 * For each golden of a kernel: the reference agrees with the truth to rounding in f64, and wasm errs at most twice as much as PyTorch.
 * A new file is a new test.
 * @param run Computes the outputs of a case, by the names that they have in the file.
 */
export async function testGoldens(
  kernel: string,
  run: (implementation: Implementation, golden: KernelGolden) => Readonly<Record<string, Values>>,
  options: GoldenOptions = {},
): Promise<void> {
  const goldens = (await kernelGoldens(kernel)).filter(options.when ?? (() => true));
  describe(`golden ${kernel}`, () => {
    test('there are cases', () => expect(goldens.length).toBeGreaterThan(0));
    test.each(goldens)('$name: the reference is the truth', (golden) => {
      for (const [name, { data }] of Object.entries(run(reference, golden))) {
        assertRelative(data, golden.of(`${name}.truth`).data, options.reference ?? 1e-12);
      }
    });
    test.each(goldens)('$name: wasm errs at most twice as much as PyTorch', (golden) => {
      for (const [name, { data }] of Object.entries(run(wasm, golden))) {
        assertErrorRatio(data, golden.of(name).data, golden.of(`${name}.truth`).data);
      }
    });
  });
}
