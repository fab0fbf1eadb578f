import { readFile } from 'node:fs/promises';
import type { RopeParameters } from '../../src/config.ts';
import type { KernelName } from '../../src/kernel_calls.ts';
import { inverseFrequencies } from '../../src/model/rotary.ts';
import { chunkedScratch, KV_CODES } from '../../src/runtime/kernels.ts';
import type { KernelExports } from '../../src/runtime/wasm_module.ts';
import { type KernelAdapter, type WasmCall, wasmAdapter } from '../../src/testing/index.ts';
import { repository } from './models.ts';

/** What assembly/scratch.ts wants for its one thread, a word behind it included, from an address that is not 0. */
const SCRATCH = { at: 64, bytes: 32 * 128 * 16 * 4 + 8192 + 64 + 4 };
const PANEL = 16;
const F32 = 0; // of the codes in assembly/panels.ts

/** The exports of build/strict.wasm, each called as anyone would who has the file alone: assembly/ says what they take. */
export async function wasmExports(kernel: KernelName): Promise<KernelAdapter> {
  const memory = new WebAssembly.Memory({ initial: 64 });
  const module = await WebAssembly.compile(await readFile(repository('build/strict.wasm')));
  const core = (await WebAssembly.instantiate(module, { env: { memory } })).exports as KernelExports;
  core.set_scratch(SCRATCH.at);
  return wasmAdapter(memory, (call) => CALLS[kernel](core, call), { begin: SCRATCH.at + SCRATCH.bytes });
}

const CALLS: Readonly<Record<KernelName, (core: KernelExports, call: WasmCall) => void>> = {
  linear(core, call) {
    const [[T, K], [N]] = [call.shape('x') as [number, number], call.shape('weight') as [number]];
    const packed = call.scratch(Math.ceil(N / PANEL) * PANEL * K * 4);
    core.pack(packed, call.input('weight'), F32, F32, 0, K, N, 0, Math.ceil(N / PANEL));
    core.linear_f32(call.output('y'), call.input('x'), packed, call.input('bias'), T, K, N, 0, Math.ceil(N / PANEL));
  },
  rms_norm(core, call) {
    const [T, D] = call.shape('x') as [number, number];
    core.rms_norm(call.output('y'), call.input('x'), call.input('weight'), D, Number(call.params['eps']), 0, T);
  },
  rms_norm_gated(core, call) {
    const [T, D] = call.shape('x') as [number, number];
    core.rms_norm_gated(call.output('y'), call.input('x'), call.input('gate'), call.input('weight'), D, Number(call.params['eps']), 0, T);
  },
  l2_norm(core, call) {
    const [T, D] = call.shape('x') as [number, number];
    core.l2_norm(call.output('y'), call.input('x'), D, Number(call.params['eps']), 0, T);
  },
  rotary(core, call) {
    const [T, H, Dh] = call.shape('x') as [number, number, number];
    const rope = call.params as unknown as RopeParameters;
    const position = Number(call.params['position']);
    const frequencies = inverseFrequencies({ exp: core.exp64, log: core.log64 }, rope, Dh);
    const table = () => call.scratch(4 * (position + T) * (Dh / 2));
    const [cos, sin, inv_freq] = [table(), table(), call.put(new Float32Array(frequencies.buffer))]; // f64, as its bits
    core.rotary_table(cos, sin, inv_freq, Dh / 2, rope.attention_factor ?? 1, 0, position + T);
    core.rotary(call.inPlace('y', 'x'), cos, sin, position, H, Dh, 0, T);
  },
  causal_conv1d(core, call) {
    const [[T, C], [, , W]] = [call.shape('x') as [number, number], call.shape('weight') as [number, number, number]];
    const stored = call.values('weight'); // [C, 1, W]; the kernel takes [W, C]
    const weight = call.put(Array.from({ length: W * C }, (_, i) => stored[(i % C) * W + Math.floor(i / C)]!));
    core.causal_conv1d(call.output('y'), call.input('x'), weight, call.inPlace('state_after', 'state'), T, C, W, 0, C);
  },
  gdn_gate(core, call) {
    const [T, H] = call.shape('a') as [number, number];
    core.gdn_gate(call.output('g'), call.input('a'), call.input('A_log'), call.input('dt_bias'), T, H, 0, H);
  },
  gdn_beta(core, call) {
    const [T, H] = call.shape('b') as [number, number];
    core.gdn_beta(call.output('beta'), call.input('b'), call.params['allow_neg_eigval'] ? 2 : 1, T, H, 0, H);
  },
  gated_delta_rule(core, call) {
    const [T, Hk, Dk] = call.shape('k') as [number, number, number];
    const [, H, Dv] = call.shape('v') as [number, number, number];
    const inputs = ['q', 'k', 'v', 'g', 'beta'].map((name) => call.input(name)) as [number, number, number, number, number];
    const [o, S] = [call.output('o'), call.inPlace('state_after', 'state')];
    if (call.params['form'] === 'recurrent') core.gated_delta_rule_recurrent(o, ...inputs, S, T, Hk, H, Dk, Dv, 0, H);
    else core.gated_delta_rule_chunked(o, ...inputs, S, call.scratch(4 * H * chunkedScratch), T, Hk, H, Dk, Dv, 0, H);
  },
  attention(core, call) {
    const [T, H, Dh] = call.shape('q') as [number, number, number];
    const [S, Hkv] = call.shape('k') as [number, number];
    const window = Number(call.params['sliding_window'] ?? S);
    const [k, v] = [call.scratch(4 * Hkv * S * Dh), call.scratch(4 * Hkv * S * Dh)];
    core.kv_append(k, call.input('k'), S, 0, S, Hkv, Dh, KV_CODES.F32, 0, Hkv);
    core.kv_append(v, call.input('v'), S, 0, S, Hkv, Dh, KV_CODES.F32, 0, Hkv);
    core.attention(call.output('o'), call.input('q'), k, v, T, S - T, S, H, Hkv, Dh, window, KV_CODES.F32, 0, H);
  },
  swiglu(core, call) {
    const [T, D] = call.shape('gate') as [number, number];
    core.swiglu(call.output('y'), call.input('gate'), call.input('up'), 0, T * D);
  },
  softmax(core, call) {
    const [T, D] = call.shape('x') as [number, number];
    core.softmax(call.output('y'), call.input('x'), D, 0, T);
  },
};
