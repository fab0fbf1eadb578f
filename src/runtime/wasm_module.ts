import { RuntimeLimitError } from '../errors.ts';
import type { Mode } from './bank.ts';

/** The exports of a module of kernels that take a range [begin, end) of their outputs as their last two arguments; assembly/index.ts is their source. */
export const WASM_KERNELS = [
  'add',
  'attention',
  'causal_conv1d',
  'embedding_bf16',
  'embedding_f32',
  'f32_peak',
  'gated_delta_rule_chunked',
  'gated_delta_rule_recurrent',
  'gdn_beta',
  'gdn_gate',
  'i16_peak',
  'i8_peak',
  'kv_append',
  'l2_norm',
  'linear_bf16',
  'linear_f32',
  'linear_group',
  'linear_q4',
  'linear_q4_integer',
  'linear_q8',
  'linear_q8_integer',
  'memory_read',
  'pack',
  'rms_norm',
  'rms_norm_gated',
  'rotary',
  'rotary_table',
  'round_rows',
  'softmax',
  'store_rows',
  'swiglu',
] as const;
export type WasmKernelName = (typeof WASM_KERNELS)[number];

/** All exports. Addresses are numbers >= 0. */
export type KernelExports = Readonly<
  Record<WasmKernelName | 'byte_dot_kind' | 'exp32' | 'exp64' | 'log64' | 'set_scratch' | 'set_wide', (...args: number[]) => number>
>;

/**
 * Two builds of the same source. `strict`: SIMD whose results the specification fixes, so that every engine gives the same bits. `relaxed`: products
 * and sums fused where the machine can, and 8-bit dots.
 */
export type Build = 'strict' | 'relaxed';

const compiled = new Map<string, Promise<WebAssembly.Module>>();

/**
 * The compiled kernels, once for the process or page.
 * @param shared Whether their memory is shared between threads.
 * @throws {RuntimeLimitError} when the module is missing or the engine has no WebAssembly SIMD.
 */
export function kernelModule(build: Build = 'strict', shared = false): Promise<WebAssembly.Module> {
  const file = `${build}${shared ? '.shared' : ''}.wasm`;
  const module = compiled.get(file) ?? compile(file);
  compiled.set(file, module);
  module.catch(() => compiled.delete(file));
  return module;
}

/** Whether the engine has relaxed SIMD. Node 20 has it behind a flag, which is set here. */
export async function hasRelaxedSimd(): Promise<boolean> {
  if (typeof process !== 'undefined' && Number(process.versions.node?.split('.')[0]) < 22) {
    (await import('node:v8')).setFlagsFromString('--experimental-wasm-relaxed-simd');
  }
  return WebAssembly.validate(Uint8Array.from(ONE_RELAXED_MADD));
}

/** The build that a mode runs here. */
export async function buildFor(mode: Mode): Promise<Build> {
  return mode === 'fast' && (await hasRelaxedSimd()) ? 'relaxed' : 'strict';
}

/**
 * Whether dots of bytes are one exact instruction: AVX-VNNI in V8 of Node 24 and later, Arm's dot product. Then prefill over quantised weights takes
 * half as long; assembly/byte_dots.ts says more.
 */
export async function hasByteDots(): Promise<boolean> {
  if (!(await hasRelaxedSimd())) return false;
  const memory = new WebAssembly.Memory({ initial: 1 });
  const { exports } = await WebAssembly.instantiate(await kernelModule('relaxed'), { env: { memory } });
  return (exports as KernelExports).byte_dot_kind() !== 0;
}

// Versions of Node for which test:engines compares the bits. Node 22 has the flag, but does not join our loops.
const WIDE_IN_NODE = [24, 26];

/**
 * Whether V8 joins two instructions of 128 bits to one of 256 in what is compiled here: its flag experimental-wasm-revectorize, of Node 24 and 26
 * on x64. assembly/simd.ts says how kernels must be written for it. The strict build computes the same bits with it.
 */
export function hasWideVectors(): boolean {
  if (typeof process === 'undefined' || process.arch !== 'x64' || 'bun' in process.versions || 'deno' in process.versions) return false;
  return WIDE_IN_NODE.includes(Number(process.versions.node.split('.')[0]));
}

// A module of one function: f32x4.relaxed_madd of three i32x4.splat(0).
const ONE_RELAXED_MADD = [
  ...[
    0x00, 0x61, 0x73, 0x6d, 0x01, 0x00, 0x00, 0x00, 0x01, 0x05, 0x01, 0x60, 0x00, 0x01, 0x7b, 0x03, 0x02, 0x01, 0x00, 0x0a, 0x13, 0x01,
    0x11, 0x00,
  ],
  ...[0x41, 0x00, 0xfd, 0x11, 0x41, 0x00, 0xfd, 0x11, 0x41, 0x00, 0xfd, 0x11, 0xfd, 0x85, 0x02, 0x0b],
];

async function compile(file: string): Promise<WebAssembly.Module> {
  const url = new URL(`../../build/${file}`, import.meta.url);
  try {
    if (url.protocol !== 'file:') return await WebAssembly.compileStreaming(fetch(url));
    const { readFile } = await import('node:fs/promises');
    return await withBestCode(await readFile(url));
  } catch (cause) {
    throw new RuntimeLimitError(
      {
        where: `build/${file}`,
        expected: 'a WebAssembly module that this engine can compile',
        found: cause instanceof Error ? cause.message : String(cause),
        fix: 'In a checkout run `npm run build`; otherwise use Node >= 20.19 or a browser with WebAssembly SIMD.',
      },
      { cause },
    );
  }
}

/**
 * V8 begins with quick, slow code and swaps it between calls: a prompt of one chunk would run at a tenth of the speed. Compiling everything well at
 * once takes 50 ms. The flags are those of the whole process, so they are put back.
 */
async function withBestCode(bytes: Uint8Array<ArrayBuffer>): Promise<WebAssembly.Module> {
  if (process.versions.v8 === undefined) return await WebAssembly.compile(bytes);
  const { setFlagsFromString } = await import('node:v8');
  const off = ['liftoff', 'wasm-lazy-compilation'];
  // V8 of Node 26 inlines by what the quick code saw, and ends the process where there was none.
  if (Number(process.versions.node.split('.')[0]) >= 25) off.push('wasm-inlining');
  const on = hasWideVectors() ? ['experimental-wasm-revectorize'] : [];
  const set = (flags: readonly string[], value: boolean) => {
    for (const flag of flags) setFlagsFromString(value ? `--${flag}` : `--no-${flag}`);
  };
  set(off, false);
  set(on, true);
  try {
    // Not `compile`: the flags would be seen by what else is compiled meanwhile, and nothing would keep Node 24 from ending.
    return new WebAssembly.Module(bytes);
  } finally {
    set(off, true);
    set(on, false);
  }
}
