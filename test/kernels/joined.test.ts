import { execFileSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { describe, expect, test } from 'vitest';
import { type Build, hasWideVectors, kernelModule } from '../../src/runtime/wasm_module.ts';

// No bit shows whether V8 joins the vectors of a kernel: a change of order in its source would cost half its speed and fail nothing. V8 says what it does.

const FLAGS = [
  ...['--experimental-wasm-revectorize', '--trace-wasm-revectorize', '--single-threaded'],
  ...['--no-liftoff', '--no-wasm-lazy-compilation', '--no-wasm-inlining'],
];
/** Exports that are written in pairs, by build; what V8 does with the functions that they call does not say whose they are. */
const JOINED = {
  strict: ['gated_delta_rule_chunked', 'linear_bf16'],
  relaxed: [
    ...['causal_conv1d', 'gated_delta_rule_chunked', 'gated_delta_rule_recurrent', 'linear_bf16', 'rms_norm_gated', 'round_rows'],
    ...['rows_q4', 'rows_q4_bytes', 'rows_q8', 'swiglu'],
  ],
} satisfies Record<Build, readonly string[]>;

/** Instructions that V8 saves in the whole module, seen 945 and 1373: with a loop of tiles less it is 50 less, without those of linear_bytes.ts 80. */
const SAVED = { strict: 925, relaxed: 1350 } as const satisfies Record<Build, number>;

describe.runIf(hasWideVectors())('V8 joins vectors', () => {
  test.each(['strict', 'relaxed'] as const)('in every kernel of the %s build that is written for it', async (build) => {
    const file = fileURLToPath(new URL(`../../build/${build}.wasm`, import.meta.url));
    const compile = `new WebAssembly.Module(require('fs').readFileSync(${JSON.stringify(file)}))`;
    const trace = execFileSync(process.execPath, [...FLAGS, '-e', compile], { encoding: 'utf8', maxBuffer: 2 ** 28 });
    const saved = new Map(
      trace.split('Begin revec function wasm-function#').map((text) => {
        const [, save = 0, cost = 0] = /Save: (\d+), cost: (\d+)/.exec(text) ?? [];
        return [Number.parseInt(text, 10), Number(save) - Number(cost)];
      }),
    );
    const memory = new WebAssembly.Memory({ initial: 1 });
    const core = new WebAssembly.Instance(await kernelModule(build), { env: { memory } }).exports as Record<
      string,
      { readonly name: string }
    >;
    // The name of an exported function is its number in the module.
    expect(JOINED[build].filter((kernel) => !saved.get(Number(core[kernel]!.name)))).toEqual([]);
    expect([...saved.values()].reduce((sum, one) => sum + one)).toBeGreaterThanOrEqual(SAVED[build]);
  });
});
