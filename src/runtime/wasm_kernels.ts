import { KV_CODES, type Kernels } from './kernels.ts';
import { PANEL, type Tensor, TOGETHER } from './tensor.ts';
import type { RunKernel } from './thread_pool.ts';
import type { KernelExports } from './wasm_module.ts';

const LINEAR = { F32: 'linear_f32', BF16: 'linear_bf16', Q8: 'linear_q8', Q4: 'linear_q4' } as const;

/** Work below which a thread is not worth waking: some microseconds of a kernel, in products or in elements. */
const PRODUCTS = 1 << 16;
const ELEMENTS = 1 << 13;

/** Streams in which few rows read a thread's part of a weight: assembly/linear_rows.ts. */
const STREAMS = 4;
/** Grains of whole streams that several threads can share evenly. */
const ENOUGH = 12;

/**
 * Fewest panels that a thread takes at a time, of `count`: for few rows those that lie together in memory, and of large weights as many in each stream,
 * for what is left beside streams is read slowly.
 */
const panelGrain = (count: number, rows: number, K: number) => {
  const panels = grain(rows * K * PANEL, PRODUCTS);
  if (rows >= 4) return panels;
  const least = count < ENOUGH * STREAMS * TOGETHER ? TOGETHER : STREAMS * TOGETHER;
  return Math.ceil(panels / least) * least;
};

/** Numbers in whole lines of 64 bytes: two threads that write to one line take it from each other, again and again. */
const wholeLines = (numbers: number) => (numbers + 15) & ~15;

/** Fewest outputs that a thread takes at a time, which cost `work` each in units of `worth`. */
const grain = (work: number, worth: number) => Math.max(Math.ceil(worth / work), 1);

/**
 * The kernels of `assembly/` over one memory.
 * @param run shares a kernel between threads
 */
export function wasmKernels(run: RunKernel, core: KernelExports): Kernels {
  const round = (xq: Tensor, x: Tensor) => run('round_rows', x.rows, grain(x.cols, ELEMENTS), xq.ptr, x.ptr, x.cols);

  return {
    name: 'wasm',
    embedding(y, ids, table) {
      const kernel = table.format === 'BF16' ? 'embedding_bf16' : 'embedding_f32';
      run(kernel, ids.rows, ids.rows, y.ptr, ids.ptr, table.ptr, table.K);
    },
    linear(y, x, w, bias, xq) {
      const panels = Math.ceil(w.N / PANEL);
      const grained = panelGrain(panels, x.rows, w.K);
      if (!xq) return run(LINEAR[w.format], panels, grained, y.ptr, x.ptr, w.ptr, bias?.ptr ?? 0, x.rows, w.K, w.N);
      round(xq, x);
      const kernel = w.format === 'Q8' ? 'linear_q8_integer' : 'linear_q4_integer';
      run(kernel, panels, grained, y.ptr, xq.ptr, w.ptr, bias?.ptr ?? 0, x.rows, w.K, w.N);
    },
    linears({ products, table }, x, xq) {
      let panels = 0;
      for (let i = 0; i < products.length; i++) panels += Math.ceil(products[i]!.w.N / PANEL);
      if (xq) round(xq, x);
      const grained = panelGrain(panels, x.rows, x.cols);
      run('linear_group', panels, grained, table.ptr, products.length, x.ptr, xq?.ptr ?? 0, x.rows, x.cols);
    },
    rms_norm(y, x, weight, eps) {
      run('rms_norm', x.rows, grain(x.cols, ELEMENTS), y.ptr, x.ptr, weight.ptr, x.cols, eps);
    },
    rms_norm_gated(y, x, gate, weight, eps) {
      const rows = (x.rows * x.cols) / weight.cols;
      run('rms_norm_gated', rows, grain(4 * weight.cols, ELEMENTS), y.ptr, x.ptr, gate.ptr, weight.ptr, weight.cols, eps);
    },
    l2_norm(y, x, D, eps) {
      const rows = (x.rows * x.cols) / D;
      run('l2_norm', rows, grain(D, ELEMENTS), y.ptr, x.ptr, D, eps);
    },
    causal_conv1d(y, x, weight, state) {
      run('causal_conv1d', x.cols, grain(8 * x.rows, ELEMENTS) & ~3 || 4, y.ptr, x.ptr, weight.ptr, state.ptr, x.rows, x.cols, weight.rows);
    },
    gdn_gate(g, a, A_log, dt_bias) {
      run('gdn_gate', a.cols, grain(16 * a.rows, ELEMENTS), g.ptr, a.ptr, A_log.ptr, dt_bias.ptr, a.rows, a.cols);
    },
    gdn_beta(beta, b, scale) {
      run('gdn_beta', b.cols, grain(8 * b.rows, ELEMENTS), beta.ptr, b.ptr, scale, b.rows, b.cols);
    },
    gated_delta_rule_recurrent(o, q, k, v, g, beta, S, { Hk, H, Dk, Dv }) {
      run('gated_delta_rule_recurrent', H, 1, o.ptr, q.ptr, k.ptr, v.ptr, g.ptr, beta.ptr, S.ptr, q.rows, Hk, H, Dk, Dv);
    },
    gated_delta_rule_chunked(o, q, k, v, g, beta, S, scratch, { Hk, H, Dk, Dv }) {
      run('gated_delta_rule_chunked', H, 1, o.ptr, q.ptr, k.ptr, v.ptr, g.ptr, beta.ptr, S.ptr, scratch.ptr, q.rows, Hk, H, Dk, Dv);
    },
    rotary_table(cos, sin, inv_freq, attention_factor) {
      const grained = grain(32 * inv_freq.cols, ELEMENTS);
      run('rotary_table', cos.rows, grained, cos.ptr, sin.ptr, inv_freq.ptr, inv_freq.cols, attention_factor);
    },
    rotary(x, cos, sin, position) {
      const Dh = 2 * cos.cols;
      run('rotary', x.rows, grain(x.cols, ELEMENTS), x.ptr, cos.ptr, sin.ptr, position, x.cols / Dh, Dh);
    },
    kv_append(cache, x, position, { S, Hkv, Dh, kv = 'F32' }) {
      const grained = grain((kv === 'F32' ? 1 : 8) * x.rows * Dh, ELEMENTS);
      run('kv_append', Hkv, grained, cache.ptr, x.ptr, x.rows, position, S, Hkv, Dh, KV_CODES[kv]);
    },
    attention(o, q, k, v, position, { S, H, Hkv, Dh, window, kv = 'F32' }) {
      const grained = Math.ceil(PRODUCTS / (q.rows * (position + q.rows) * Dh));
      run('attention', H, grained, o.ptr, q.ptr, k.ptr, v.ptr, q.rows, position, S, H, Hkv, Dh, window, KV_CODES[kv]);
    },
    swiglu(y, gate, up) {
      const n = gate.rows * gate.cols;
      run('swiglu', n, wholeLines(grain(8, ELEMENTS)), y.ptr, gate.ptr, up.ptr);
    },
    add(y, x) {
      const n = x.rows * x.cols;
      run('add', n, wholeLines(grain(1, 4 * ELEMENTS)), y.ptr, x.ptr);
    },
    softmax(y, x) {
      run('softmax', x.rows, grain(8 * x.cols, ELEMENTS), y.ptr, x.ptr, x.cols);
    },
    exp: (x) => core.exp64(x),
    log: (x) => core.log64(x),
  };
}
