import type { LimitsMeter } from '../dist/bench/limits.js';
import { referenceKernels } from '../dist/kernels.js';
import type { Bank } from '../dist/runtime/bank.js';
import { chunkedScratch } from '../dist/runtime/kernels.js';
import { ReferenceBank } from '../dist/runtime/reference_bank.js';
import { formatOf, type Tensor, type WeightDtype } from '../dist/runtime/tensor.js';
import { WasmBank } from '../dist/runtime/wasm_bank.js';
import { ThreadPool } from '../dist/runtime/thread_pool.js';
import { measure, type Subject, show } from './measure.js';

// Shapes of the released 7B: hidden 3840, intermediate 11008, 30 heads, state 96 x 192.
const [D, F, H, Dk, Dv, Dh] = [3840, 11008, 30, 96, 192, 128];

function fill({ data }: Tensor, scale: number): void {
  for (let i = 0; i < data.length; i++) data[i] = scale * Math.sin(1 + i * 0.7);
}

/** A weight with values of the size that trained ones have, written through the loader's staging area. */
function weight(m: Bank, N: number, K: number, format: WeightDtype) {
  const matrix = m.matrix(N, K, formatOf(format));
  const rows = Math.floor(m.staging.length / (K * 4) / 16) * 16;
  for (let begin = 0; begin < N; begin += rows) {
    const end = Math.min(begin + rows, N);
    const { buffer, byteOffset } = m.staging;
    const count = (end - begin) * K;
    const values = format === 'BF16' ? new Uint16Array(buffer, byteOffset, count) : new Float32Array(buffer, byteOffset, count);
    for (let i = 0; i < count; i++) values[i] = format === 'BF16' ? 0x3c00 + (i % 97) : 0.01 + (i % 97) * 1e-4;
    m.storeRows(matrix, format, begin, end);
  }
  return matrix;
}

export function linear(m: Bank, T: number, K: number, N: number, format: WeightDtype): Subject {
  const w = weight(m, N, K, format);
  const [x, y] = [m.tensor(T, K), m.tensor(T, N)];
  fill(x, 1);
  const name = `linear_${format.toLowerCase()} ${T}x${K}x${N}, ${m.kernels.name}`;
  const warm = { ...x, rows: Math.min(T, 4) };
  for (let i = 0; i < 30; i++) m.kernels.linear({ ...y, rows: warm.rows }, warm, w, null); // short calls, so that V8 swaps in its best code
  const work = T === 1 ? N * K * (format === 'BF16' ? 2 : 4) : 2 * T * K * N;
  return {
    name,
    unit: T === 1 ? 'GB/s' : 'GFLOP/s',
    run() {
      m.kernels.linear(y, x, w, null);
      return work;
    },
  };
}

function deltaRule(m: Bank, form: 'recurrent' | 'chunked', T: number): Subject {
  const shape = { Hk: H, H, Dk, Dv };
  const [q, k, v, o] = [m.tensor(T, H * Dk), m.tensor(T, H * Dk), m.tensor(T, H * Dv), m.tensor(T, H * Dv)];
  const [g, beta, S, scratch] = [m.tensor(T, H), m.tensor(T, H), m.tensor(H, Dk * Dv), m.tensor(H, chunkedScratch)];
  for (const x of [q, k, v]) fill(x, 0.1);
  g.data.fill(-0.05);
  beta.data.fill(1.5);
  return {
    name: `gated_delta_rule_${form} T=${T}, ${H} heads of ${Dk}x${Dv}, ${m.kernels.name}`,
    unit: 'token/s',
    run() {
      S.data.fill(0);
      if (form === 'chunked') m.kernels.gated_delta_rule_chunked(o, q, k, v, g, beta, S, scratch, shape);
      else m.kernels.gated_delta_rule_recurrent(o, q, k, v, g, beta, S, shape);
      return T;
    },
  };
}

function elementwise(m: Bank, T: number): Subject[] {
  const subject = (name: string, bytes: number, run: () => void): Subject => ({
    name: `${name}, ${m.kernels.name}`,
    unit: 'GB/s',
    run() {
      run();
      return bytes;
    },
  });
  const [x, y, w] = [m.tensor(T, D), m.tensor(T, D), m.tensor(1, D)];
  const [gate, up, conv, state] = [m.tensor(T, F), m.tensor(T, F), m.tensor(4, D), m.tensor(3, D)];
  const [head, headGate, headOut, headWeight] = [m.tensor(T, H * Dv), m.tensor(T, H * Dv), m.tensor(T, H * Dv), m.tensor(1, Dv)];
  for (const t of [x, w, gate, up, conv, head, headGate, headWeight]) fill(t, 1);
  const K = m.kernels;
  return [
    subject(`rms_norm ${T}x${D}`, 8 * T * D, () => K.rms_norm(y, x, w, 1e-6)),
    subject(`rms_norm_gated ${T * H}x${Dv}`, 12 * T * H * Dv, () => K.rms_norm_gated(headOut, head, headGate, headWeight, 1e-5)),
    subject(`l2_norm ${T * H}x${Dh}`, 8 * T * D, () => K.l2_norm(y, x, Dh, 1e-6)),
    subject(`causal_conv1d ${T}x${D}, W=4`, 8 * T * D, () => K.causal_conv1d(y, x, conv, state)),
    subject(`swiglu ${T}x${F}`, 12 * T * F, () => K.swiglu(gate, gate, up)),
    subject(`softmax ${T}x${D}`, 8 * T * D, () => K.softmax(y, x)),
  ];
}

function attention(m: Bank, T: number, S: number): Subject {
  const shape = { H, Hkv: H, Dh, S, window: S };
  const [q, o, k, v] = [m.tensor(T, D), m.tensor(T, D), m.tensor(H, S * Dh), m.tensor(H, S * Dh)];
  for (const x of [q, k, v]) fill(x, 0.3);
  return {
    name: `attention ${T} of ${S} positions, ${H} heads of ${Dh}, ${m.kernels.name}`,
    unit: 'GFLOP/s',
    run() {
      m.kernels.attention(o, q, k, v, S - T, shape);
      return 4 * H * Dh * T * (S - (T - 1) / 2);
    },
  };
}

/** The tables of all kernels, as lines of markdown. */
export async function kernelTables({ f32_peak, memory_read }: Pick<LimitsMeter, 'f32_peak' | 'memory_read'>): Promise<string[]> {
  const pool = await ThreadPool.create(1);
  const bank = (megabytes: number) => new WasmBank(pool, 1, 'strict', { persistent: megabytes * 1e6, scratch: 2 ** 22 });
  const peak: Subject = { name: 'f32 peak', unit: 'GFLOP/s', run: f32_peak };
  const read: Subject = { name: 'memory read', unit: 'GB/s', run: memory_read };

  const lines = ['| kernel | rate | limit in the same run | share |', '|---|---|---|---|'];
  const held = async (limit: Subject, subject: Subject) => {
    const [most, rate] = (await measure([limit, subject])) as [Rated, Rated];
    const share = `${((100 * rate.rate) / most.rate).toFixed(0)}%`;
    lines.push(`| ${rate.name} | ${show(rate)} ${rate.unit} | ${limit.name} ${show(most)} | **${share}** |`);
  };
  await held(peak, linear(bank(80), 256, D, D, 'F32'));
  await held(peak, linear(bank(80), 256, D, D, 'BF16'));
  await held(read, linear(bank(200), 1, D, F, 'F32'));
  await held(read, linear(bank(100), 1, D, F, 'BF16'));

  lines.push('', '| kernel | rate |', '|---|---|');
  const plain = async (subjects: Subject[]) => {
    for (const rate of await measure(subjects)) lines.push(`| ${rate.name} | ${show(rate)} ${rate.unit} |`);
  };
  await plain([deltaRule(bank(80), 'recurrent', 256), deltaRule(bank(80), 'chunked', 256), deltaRule(bank(20), 'recurrent', 1)]);
  await plain([attention(bank(80), 64, 1024), attention(bank(80), 1, 1024)]);
  await plain(elementwise(bank(200), 64));

  lines.push('', '| the reference, for scale | rate |', '|---|---|');
  const slow = new ReferenceBank(1);
  if (slow.kernels !== referenceKernels) throw new Error('the reference bank has other kernels');
  await plain([linear(slow, 4, D, 256, 'F32'), deltaRule(slow, 'recurrent', 4), attention(slow, 4, 256), ...elementwise(slow, 4)]);
  return lines;
}

type Rated = Awaited<ReturnType<typeof measure>>[number];
