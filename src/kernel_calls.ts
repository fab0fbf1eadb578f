import type { RopeParameters } from './config.ts';
import { ArgumentError } from './errors.ts';
import { rotaryTable } from './model/rotary.ts';
import type { Bank } from './runtime/bank.ts';
import { chunkedScratch } from './runtime/kernels.ts';
import { type FloatArray, formatOf, type Tensor, type WeightDtype } from './runtime/tensor.ts';

/** A tensor of a kernel's call, row-major; golden/README.md has the table of their names and shapes. */
export interface KernelTensor {
  readonly shape: readonly number[];
  readonly data: FloatArray;
}

/** A weight that is not f32 in its file, as stored there. */
interface StoredTensor extends KernelTensor {
  readonly dtype?: string;
  readonly bytes?: Uint8Array;
}

type Inputs = Readonly<Record<string, StoredTensor | undefined>>;
type Params = Readonly<Record<string, unknown>>;
/** A kernel's outputs by name; valid until the bank is used again. */
export type KernelOutputs = Readonly<Record<string, FloatArray>>;

/** How each kernel is called with the inputs of the table in golden/README.md. */
const CALLS = {
  linear(m, inputs) {
    const { shape, dtype = 'F32', bytes } = given(inputs, 'weight');
    const [N, K] = shape as [number, number];
    const weight = m.matrix(N, K, formatOf(dtype as WeightDtype));
    m.staging.set(bytes ?? new Uint8Array(Float32Array.from(given(inputs, 'weight').data).buffer));
    m.storeRows(weight, dtype as WeightDtype, 0, N);
    const x = placed(m, inputs, 'x');
    const y = m.tensor(x.rows, N);
    m.kernels.linear(y, x, weight, inputs['bias'] ? placed(m, inputs, 'bias') : null);
    return { y: y.data };
  },
  rms_norm(m, inputs, { eps }) {
    const x = placed(m, inputs, 'x');
    const y = m.tensor(x.rows, x.cols);
    m.kernels.rms_norm(y, x, placed(m, inputs, 'weight'), eps as number);
    return { y: y.data };
  },
  rms_norm_gated(m, inputs, { eps }) {
    const x = placed(m, inputs, 'x');
    const y = m.tensor(x.rows, x.cols);
    m.kernels.rms_norm_gated(y, x, placed(m, inputs, 'gate'), placed(m, inputs, 'weight'), eps as number);
    return { y: y.data };
  },
  l2_norm(m, inputs, { eps }) {
    const x = placed(m, inputs, 'x');
    const y = m.tensor(x.rows, x.cols);
    m.kernels.l2_norm(y, x, x.cols, eps as number);
    return { y: y.data };
  },
  rotary(m, inputs, params) {
    const x = placed(m, inputs, 'x');
    const [T, , Dh] = given(inputs, 'x').shape as [number, number, number];
    const position = params['position'] as number;
    const rope = { attention_factor: null, ...params } as unknown as RopeParameters;
    const table = rotaryTable(m, rope, position + T, Dh);
    table.fill();
    m.kernels.rotary(x, table.cos, table.sin, position);
    return { y: x.data };
  },
  causal_conv1d(m, inputs) {
    const { shape, data } = given(inputs, 'weight');
    const [C, , W] = shape as [number, number, number];
    const weight = m.tensor(W, C); // [C, 1, W] in files
    for (let c = 0; c < C; c++) for (let j = 0; j < W; j++) weight.data[j * C + c] = data[c * W + j]!;
    const x = placed(m, inputs, 'x');
    const state = placed(m, inputs, 'state');
    const y = m.tensor(x.rows, C);
    m.kernels.causal_conv1d(y, x, weight, state);
    return { y: y.data, state_after: state.data };
  },
  gdn_gate(m, inputs) {
    const a = placed(m, inputs, 'a');
    const g = m.tensor(a.rows, a.cols);
    m.kernels.gdn_gate(g, a, placed(m, inputs, 'A_log'), placed(m, inputs, 'dt_bias'));
    return { g: g.data };
  },
  gdn_beta(m, inputs, { allow_neg_eigval }) {
    const b = placed(m, inputs, 'b');
    const beta = m.tensor(b.rows, b.cols);
    m.kernels.gdn_beta(beta, b, allow_neg_eigval ? 2 : 1);
    return { beta: beta.data };
  },
  gated_delta_rule(m, inputs, { form }) {
    const [T, Hk, Dk] = given(inputs, 'q').shape as [number, number, number];
    const [, H, Dv] = given(inputs, 'v').shape as [number, number, number];
    const S = inputs['state'] ? placed(m, inputs, 'state') : m.tensor(H, Dk * Dv);
    const o = m.tensor(T, H * Dv);
    const [q, k, v] = [placed(m, inputs, 'q'), placed(m, inputs, 'k'), placed(m, inputs, 'v')];
    const [g, beta] = [placed(m, inputs, 'g'), placed(m, inputs, 'beta')];
    const shape = { Hk, H, Dk, Dv };
    if (form === 'recurrent') m.kernels.gated_delta_rule_recurrent(o, q, k, v, g, beta, S, shape);
    else m.kernels.gated_delta_rule_chunked(o, q, k, v, g, beta, S, m.tensor(H, chunkedScratch), shape);
    return { o: o.data, state_after: S.data };
  },
  attention(m, inputs, { sliding_window }) {
    const [T, H, Dh] = given(inputs, 'q').shape as [number, number, number];
    const [S, Hkv] = given(inputs, 'k').shape as [number, number, number];
    const shape = { H, Hkv, Dh, S, window: (sliding_window as number | null) ?? S };
    const [k, v] = [m.tensor(Hkv, S * Dh), m.tensor(Hkv, S * Dh)];
    m.kernels.kv_append(k, placed(m, inputs, 'k'), 0, shape);
    m.kernels.kv_append(v, placed(m, inputs, 'v'), 0, shape);
    const o = m.tensor(T, H * Dh);
    m.kernels.attention(o, placed(m, inputs, 'q'), k, v, S - T, shape);
    return { o: o.data };
  },
  swiglu(m, inputs) {
    const gate = placed(m, inputs, 'gate');
    const y = m.tensor(gate.rows, gate.cols);
    m.kernels.swiglu(y, gate, placed(m, inputs, 'up'));
    return { y: y.data };
  },
  softmax(m, inputs) {
    const x = placed(m, inputs, 'x');
    const y = m.tensor(x.rows, x.cols);
    m.kernels.softmax(y, x);
    return { y: y.data };
  },
} satisfies Readonly<Record<string, (m: Bank, inputs: Inputs, params: Params) => KernelOutputs>>;

export type KernelName = keyof typeof CALLS;

/** The kernels that can be called by name: those of the table in golden/README.md. */
export const kernelNames = Object.keys(CALLS) as readonly KernelName[];

/**
 * Calls a kernel by the names of golden/README.md.
 * @param m fresh buffers are taken from it
 * @throws {ArgumentError} when an input is missing
 */
export function callKernel(m: Bank, kernel: KernelName, inputs: Inputs, params: Params): KernelOutputs {
  const call: (m: Bank, inputs: Inputs, params: Params) => KernelOutputs = CALLS[kernel];
  return call(m, inputs, params);
}

function given(inputs: Inputs, name: string): StoredTensor {
  const tensor = inputs[name];
  if (tensor) return tensor;
  const fix = 'golden/README.md has the table of kernels and their inputs.';
  throw new ArgumentError({ where: 'inputs of the kernel', expected: `a tensor ${name}`, found: 'nothing', fix });
}

/** An input [T, ...] as rows of all the rest, a vector as one row. */
function placed(m: Bank, inputs: Inputs, name: string): Tensor {
  const { shape, data } = given(inputs, name);
  const [rows, cols] = shape.length === 1 ? [1, shape[0]!] : [shape[0]!, shape.slice(1).reduce((product, n) => product * n, 1)];
  const tensor = m.tensor(rows, cols);
  tensor.data.set(data);
  return tensor;
}
