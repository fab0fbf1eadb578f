import { execFile } from 'node:child_process';
import { existsSync } from 'node:fs';
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { promisify } from 'node:util';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { ArgumentError } from '../src/errors.ts';
import { callKernel } from '../src/kernel_calls.ts';
import { ReferenceBank } from '../src/runtime/reference_bank.ts';
import {
  checkKernel,
  distinct,
  functionAdapter,
  type KernelAdapter,
  KernelFailure,
  kernelNames,
  lawsOf,
  size,
  subprocessAdapter,
  wasmAdapter,
} from '../src/testing/index.ts';
import { repository, temporaryFolder } from './support/models.ts';
import { wasmExports } from './support/wasm_exports.ts';

const RUNS = 40;
const SERVER = repository('test/support/kernel_server.mjs');
const reference = functionAdapter((inputs, params, { kernel }) => callKernel(new ReferenceBank(1), kernel, inputs, params), 'reference');

/** The failure of a check that must fail. */
async function failureOf(check: Promise<unknown>): Promise<KernelFailure> {
  const error: unknown = await check.then(
    () => null,
    (thrown: unknown) => thrown,
  );
  if (!(error instanceof KernelFailure)) throw new Error(`expected a KernelFailure, found ${String(error)}`);
  return error;
}

/** A mistake in the reference, as a function. */
function mistaken(change: (y: Float64Array, inputs: Parameters<typeof callKernel>[2]) => void): KernelAdapter {
  return functionAdapter((inputs, params, { kernel }) => {
    const outputs = callKernel(new ReferenceBank(1), kernel, inputs, params);
    change(Object.values(outputs)[0] as Float64Array, inputs);
    return outputs;
  }, 'mistaken');
}

describe.each(kernelNames)('%s', (kernel) => {
  test('the kernels in wasm keep every law', async () => {
    const report = await checkKernel(kernel, await wasmExports(kernel), { runs: RUNS, seed: 7 });
    expect(report).toMatchObject({ kernel, laws: lawsOf(kernel), runs: RUNS });
    expect(report.largest_share).toBeGreaterThan(0);
  });

  test('the reference keeps them in f64', async () => {
    expect((await checkKernel(kernel, reference, { runs: RUNS, seed: 7, precision: 'f64' })).laws.length).toBeGreaterThan(4);
  });
});

describe('a mistake', () => {
  const negated = mistaken((y) => {
    for (let i = 3; i < y.length; i++) y[i] = -y[i]!;
  });

  test('is shown in a case that is as small as it can be', async () => {
    const failure = await failureOf(checkKernel('swiglu', negated, { seed: 1 }));
    expect(failure.kernel).toBe('swiglu');
    const [first] = failure.broken;
    expect(first!.law).toBe('equals the float64 reference');
    // Four elements are the fewest of which the fourth is wrong; it may be 0 there.
    expect(first!.example.inputs['gate']!.data.length).toBeLessThanOrEqual(6);
    expect(failure.message).toMatch(/^mistaken: swiglu breaks the law "equals the float64 reference": y\[\d\]\[\d\] is /);
    expect(failure.message).toMatch(/\n {2}gate \[\d, \d\] = \[\[/);
  });

  test('comes again from law, seed and path, and alone', async () => {
    const [first] = (await failureOf(checkKernel('swiglu', negated, { seed: 1 }))).broken;
    const calls: unknown[] = [];
    const counted: KernelAdapter = {
      name: 'counted',
      run: (request) => {
        calls.push(request);
        return negated.run(request);
      },
    };
    const { law, seed, path, example } = first!;
    const [again] = (await failureOf(checkKernel('swiglu', counted, { law, seed, path }))).broken;
    expect(again!.example.inputs['gate']!.data).toEqual(example.inputs['gate']!.data);
    expect(again!.what).toBe(first!.what);
    expect(calls.length).toBe(1);
  });

  test('of a law that the reference comparison is too coarse for is still found', async () => {
    // Off by less than the bound of an f32 norm, yet no function of the row alone.
    const leaking = mistaken((y, { x }) => {
      const D = x!.shape[1]!;
      for (let i = D; i < y.length; i++) y[i] = y[i]! * (1 + 1e-8 * Math.sign(x!.data[i - D]!));
    });
    const failure = await failureOf(checkKernel('rms_norm', leaking, { seed: 1, precision: 'f64' }));
    expect(failure.broken.map(({ law }) => law)).toContain('a token alone gives what it gives among others');
    await checkKernel('rms_norm', leaking, { seed: 1 }); // within what f32 may do
  });

  test('an output that is missing or too short is named', async () => {
    const none = functionAdapter(() => ({}));
    expect((await failureOf(checkKernel('softmax', none, { runs: 3 }))).message).toMatch(
      /y should be \[\d+, \d+\], \d+ elements; found nothing/,
    );
    const short = functionAdapter(() => ({ y: new Float32Array(1) }));
    expect((await failureOf(checkKernel('softmax', short, { runs: 30 }))).message).toMatch(/found 1/);
  });
});

describe('options', () => {
  test('a law that does not exist, a path without its seed', async () => {
    await expect(checkKernel('softmax', reference, { law: 'is pretty' })).rejects.toThrow(ArgumentError);
    await expect(checkKernel('softmax', reference, { law: 'is pretty' })).rejects.toThrow(/"a row sums to 1".*found "is pretty"/);
    await expect(checkKernel('softmax', reference, { path: '0:1' })).rejects.toThrow(ArgumentError);
  });

  test('a kernel or a precision that there is not', async () => {
    await expect(checkKernel('softmaxx' as 'softmax', reference)).rejects.toThrow(/kernel: expected .*softmax.*, found "softmaxx"/);
    await expect(checkKernel('toString' as 'softmax', reference)).rejects.toThrow(ArgumentError);
    await expect(checkKernel('softmax', reference, { precision: 'bf16' as 'f32' })).rejects.toThrow(
      /precision: expected f32 or f64.*found "bf16"/,
    );
  });

  test('draws choose the kinds of values', async () => {
    const seen: number[] = [];
    const watching: KernelAdapter = {
      name: 'watching',
      run(request) {
        seen.push(...request.inputs['x']!.data);
        return reference.run(request);
      },
    };
    await checkKernel('l2_norm', watching, { draws: ['integers'], runs: 10, law: 'equals the float64 reference', seed: 3 });
    expect(seen.length).toBeGreaterThan(100);
    expect(seen.filter((x) => !Number.isInteger(x))).toEqual([]);
  });
});

describe('shapes', () => {
  test('are never equal, and shrink to 1 and 2', () => {
    fc.assert(
      fc.property(distinct({ a: 17, b: 33, c: 129 }), ({ a, b, c }) => {
        expect(new Set([a, b, c]).size).toBe(3);
        expect(a <= 17 && b <= 33 && c <= 129 && Math.min(a, b, c) >= 1).toBe(true);
      }),
    );
    const run = fc.check(
      fc.property(distinct({ a: 129, b: 129 }), () => false),
      { seed: 5 },
    );
    expect(run.counterexample).toEqual([{ a: 1, b: 2 }]);
  });

  test('blocks ± 1 come often', () => {
    const drawn = fc.sample(size(), { numRuns: 2000, seed: 1 });
    for (const n of [1, 15, 16, 17, 63, 64, 65, 127, 128, 129]) expect(drawn).toContain(n);
  });
});

describe('a wasm export', () => {
  const memory = new WebAssembly.Memory({ initial: 1 });
  const floats = () => new Float32Array(memory.buffer);

  test('that writes to its input or beyond its output is found out', async () => {
    const input = wasmAdapter(memory, (call) => {
      const x = call.input('x');
      if (call.values('x').length > 0) floats()[x / 4] = 42;
      call.output('y');
    });
    expect((await failureOf(checkKernel('softmax', input, { runs: 20 }))).message).toContain('word 0 of input x has been overwritten');
    const beyond = wasmAdapter(memory, (call) => {
      call.input('x');
      const [T, D] = call.shape('x') as [number, number];
      floats().fill(1 / D, call.output('y') / 4, call.output('y') / 4 + T * D + 1);
    });
    expect((await failureOf(checkKernel('softmax', beyond, { runs: 20 }))).message).toMatch(
      /the space behind address \d+ and its \d+ bytes/,
    );
  });

  test('that leaves an element out, or asks for what there is not', async () => {
    const idle = wasmAdapter(memory, (call) => void call.output('y'), { name: 'idle' });
    expect((await failureOf(checkKernel('softmax', idle, { runs: 20 }))).message).toMatch(/^idle: softmax .* is NaN, not /);
    const asking = wasmAdapter(memory, (call) => void call.output('z'));
    await expect(checkKernel('softmax', asking, { runs: 3 })).rejects.toThrow(/expected one of y, found "z"/);
  });

  test('the memory grows with the case', async () => {
    const before = memory.buffer.byteLength;
    const large = wasmAdapter(memory, (call) => {
      call.scratch(before);
      floats().set(
        Float32Array.from(
          callKernel(
            new ReferenceBank(1),
            'softmax',
            { x: { shape: call.shape('x'), data: Float32Array.from(call.values('x') as Float32Array) } },
            {},
          )['y']!,
        ),
        call.output('y') / 4,
      );
    });
    await checkKernel('softmax', large, { runs: 5 });
    expect(memory.buffer.byteLength).toBeGreaterThan(before);
  });
});

describe('docs/property_kit.md', async () => {
  const text = await readFile(repository('docs/property_kit.md'), 'utf8');

  test('its first example runs as it stands, and says what the page says', async () => {
    const built = repository('dist/testing/index.js');
    if (!existsSync(built)) throw new Error('there is no dist/testing/index.js: run `npm run build` before this test');
    const example = /^```js\n(.*?)^```/ms.exec(text)![1]!;
    const output = /^```\n(naive: .*?)^```/ms.exec(text)![1]!;
    const file = join(await temporaryFolder(), 'example.mjs');
    await writeFile(file, example.replace("'olmo-hybrid/testing'", JSON.stringify(pathToFileURL(built).href)));
    const failed = await promisify(execFile)(process.execPath, [file]).catch((error: { stderr: string }) => error);
    expect(failed.stderr).toContain(output.trim());
  });

  test.each(kernelNames)('lists the laws of %s', (kernel) => {
    expect(text).toContain(`| \`${kernel}\` | ${lawsOf(kernel).slice(1).join('; ')} |`);
  });
});

describe('a subprocess', () => {
  const serve = (...args: string[]) => subprocessAdapter(process.execPath, [SERVER, ...args], { timeout_ms: 30_000 });

  test('that is right keeps every law, in one process', async () => {
    const port = serve();
    try {
      await checkKernel('l2_norm', port, { runs: RUNS, seed: 2 });
      await checkKernel('gated_delta_rule', port, { runs: RUNS, seed: 2 });
    } finally {
      await port.close();
    }
  });

  test('that reads the state before it decays is found with a case of at most 4 tokens and sizes of at most 8', async () => {
    const port = serve('decay_after_read');
    try {
      const failure = await failureOf(checkKernel('gated_delta_rule', port, { seed: 2 }));
      const { inputs } = failure.broken[0]!.example;
      expect(inputs['q']!.shape[0]).toBeLessThanOrEqual(4);
      for (const input of Object.values(inputs)) expect(Math.max(...input!.shape)).toBeLessThanOrEqual(8);
      expect(failure.message).toMatch(/\n {2}v \[\d, \d, \d\] = \[\[\[/);
      const { law, seed, path } = failure.broken[0]!;
      expect((await failureOf(checkKernel('gated_delta_rule', port, { law, seed, path }))).broken[0]!.what).toBe(failure.broken[0]!.what);
    } finally {
      await port.close();
    }
  });

  test('that adds eps outside the root is found with one number', async () => {
    const port = serve('eps_outside_the_root');
    try {
      const failure = await failureOf(checkKernel('l2_norm', port, { seed: 2 }));
      expect(failure.broken[0]!.example.inputs['x']!.shape).toEqual([1, 1]);
    } finally {
      await port.close();
    }
  });

  test.each([
    ['die', /the process ended \(status 3\) before it answered; it says: out of coffee/],
    ['chatter', /the answer begins with "computin", not with its length: keep stdout free/],
    ['refuse', /no kernel softmax/],
  ])('that does not answer as it should: %s', async (mistake, message) => {
    const port = serve(mistake);
    expect((await failureOf(checkKernel('softmax', port, { runs: 1, draws: ['integers'], law: 'a row sums to 1' }))).message).toMatch(
      message,
    );
    await port.close();
  });

  test('that never answers is given up', async () => {
    const port = subprocessAdapter(process.execPath, [SERVER, 'silent'], { timeout_ms: 300 });
    const request = {
      kernel: 'softmax',
      inputs: { x: { shape: [1, 1], data: Float32Array.of(1) } },
      params: {},
      outputs: { y: [1, 1] },
    } as const;
    await expect(Promise.resolve(port.run(request))).rejects.toThrow(/no answer within 300 ms/);
    await port.close();
  });

  test.each([
    ['silent', 'no answer within 3000 ms'],
    ['mutter', 'no answer within 3000 ms, but 3 bytes on stdout that are none as a whole: "ok\\n"'],
  ])('that never answers ends the check after one wait: %s', async (mistake, what) => {
    const port = subprocessAdapter(process.execPath, [SERVER, mistake], { timeout_ms: 3000, name: 'port' });
    let asked = 0;
    const counted: KernelAdapter = {
      name: port.name,
      run(request) {
        asked++;
        return port.run(request);
      },
    };
    const failure = await failureOf(checkKernel('softmax', counted, { seed: 1 }));
    expect([asked, failure.broken.map((one) => one.what)]).toEqual([1, [what]]);
    expect(failure.message).toMatch(/^port: softmax breaks the law "equals the float64 reference": no answer/);
    expect(failure.message).not.toContain('Kept');
    await port.close();
  });

  test.skipIf(process.platform === 'win32')('is ended with what it has started', async () => {
    const file = join(await temporaryFolder(), 'pid');
    const port = subprocessAdapter('sh', ['-c', `sleep 600 & echo $! > ${file}; wait`], { timeout_ms: 1000 });
    await failureOf(checkKernel('softmax', port));
    await port.close();
    const { stdout } = await promisify(execFile)('ps', ['-o', 'stat=', '-p', (await readFile(file, 'utf8')).trim()]).catch(() => ({
      stdout: '',
    }));
    expect(stdout).toMatch(/^$|^Z/);
  });

  test('that does not start is no fault of the kernel', async () => {
    const port = subprocessAdapter('/nowhere/kernel');
    await expect(checkKernel('softmax', port, { runs: 2 })).rejects.toThrow(ArgumentError);
    await port.close();
  });
});
