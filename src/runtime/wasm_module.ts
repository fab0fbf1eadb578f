import { RuntimeLimitError } from '../errors.ts';

/** The exports of `build/kernels.wasm`; assembly/index.ts is their source. Addresses are numbers >= 0, ranges [begin, end). */
export type KernelExports = Readonly<
  Record<
    | 'add'
    | 'attention'
    | 'causal_conv1d'
    | 'embedding_bf16'
    | 'embedding_f32'
    | 'copy_bf16'
    | 'copy_f16'
    | 'copy_f32'
    | 'exp64'
    | 'gated_delta_rule_chunked'
    | 'gated_delta_rule_recurrent'
    | 'gdn_beta'
    | 'gdn_gate'
    | 'kv_append'
    | 'l2_norm'
    | 'linear_bf16'
    | 'linear_f32'
    | 'log64'
    | 'pack_bf16'
    | 'pack_f16'
    | 'pack_f32'
    | 'rms_norm'
    | 'rms_norm_gated'
    | 'rotary'
    | 'rotary_table'
    | 'softmax'
    | 'swiglu',
    (...args: number[]) => number
  >
>;

const url = new URL('../../build/kernels.wasm', import.meta.url);
let compiled: Promise<WebAssembly.Module> | undefined;

/**
 * The compiled kernels, once for the process or page.
 * @throws {RuntimeLimitError} when the module is missing or the engine has no WebAssembly SIMD.
 */
export function kernelModule(): Promise<WebAssembly.Module> {
  compiled ??= compile();
  return compiled;
}

async function compile(): Promise<WebAssembly.Module> {
  try {
    if (url.protocol === 'file:') {
      const { readFile } = await import('node:fs/promises');
      return await WebAssembly.compile(await readFile(url));
    }
    return await WebAssembly.compileStreaming(fetch(url));
  } catch (cause) {
    compiled = undefined;
    throw new RuntimeLimitError(
      {
        where: 'build/kernels.wasm',
        expected: 'a WebAssembly module that this engine can compile',
        found: cause instanceof Error ? cause.message : String(cause),
        fix: 'In a checkout run `npm run build`; otherwise use Node >= 20.19 or a browser with WebAssembly SIMD.',
      },
      { cause },
    );
  }
}
