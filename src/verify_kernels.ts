import type { RopeParameters } from './config.ts';
import { rotaryTable } from './model/rotary.ts';
import type { Bank } from './runtime/bank.ts';
import { chunkedScratch } from './runtime/kernels.ts';
import type { FloatArray, Tensor, WeightDtype } from './runtime/tensor.ts';
import { formatOf } from './runtime/tensor.ts';
import { type ErrorRatio, errorRatio, type Golden, tensorOf } from './verify_golden.ts';

/** A kernel's outputs by their names in the golden. */
export type Outputs = Readonly<Record<string, FloatArray>>;
type Parameters = Readonly<Record<string, unknown>>;

/** How each kernel is called with the inputs of its golden; golden/README.md lists them. */
const CALLS: Readonly<Record<string, (m: Bank, golden: Golden, params: Parameters) => Outputs>> = {
  linear(m, golden) {
    const { shape, dtype, bytes } = tensorOf(golden, 'weight');
    const [N, K] = shape as [number, number];
    const weight = m.matrix(N, K, formatOf(dtype as WeightDtype));
    m.staging.set(bytes);
    m.storeRows(weight, dtype as WeightDtype, 0, N);
    const x = input(m, golden, 'x');
    const y = m.tensor(x.rows, N);
    m.kernels.linear(y, x, weight, golden.tensors.has('bias') ? input(m, golden, 'bias') : null);
    return { y: y.data };
  },
  rms_norm(m, golden, { eps }) {
    const x = input(m, golden, 'x');
    const y = m.tensor(x.rows, x.cols);
    m.kernels.rms_norm(y, x, input(m, golden, 'weight'), eps as number);
    return { y: y.data };
  },
  rms_norm_gated(m, golden, { eps }) {
    const x = input(m, golden, 'x');
    const y = m.tensor(x.rows, x.cols);
    m.kernels.rms_norm_gated(y, x, input(m, golden, 'gate'), input(m, golden, 'weight'), eps as number);
    return { y: y.data };
  },
  l2_norm(m, golden, { eps }) {
    const x = input(m, golden, 'x');
    const y = m.tensor(x.rows, x.cols);
    m.kernels.l2_norm(y, x, x.cols, eps as number);
    return { y: y.data };
  },
  rotary(m, golden, params) {
    const x = input(m, golden, 'x');
    const [T, , Dh] = tensorOf(golden, 'x').shape as [number, number, number];
    const position = params.position as number;
    const rope = { attention_factor: null, ...params } as unknown as RopeParameters;
    const table = rotaryTable(m, rope, position + T, Dh);
    table.fill();
    m.kernels.rotary(x, table.cos, table.sin, position);
    return { y: x.data };
  },
  causal_conv1d(m, golden) {
    const [C, , W] = tensorOf(golden, 'weight').shape as [number, number, number];
    const stored = floats(golden, 'weight'); // [C, 1, W], in memory [W, C]
    const weight = m.tensor(W, C);
    for (let c = 0; c < C; c++) for (let j = 0; j < W; j++) weight.data[j * C + c] = stored[c * W + j]!;
    const x = input(m, golden, 'x');
    const state = input(m, golden, 'state');
    const y = m.tensor(x.rows, C);
    m.kernels.causal_conv1d(y, x, weight, state);
    return { y: y.data, state_after: state.data };
  },
  gdn_gate(m, golden) {
    const a = input(m, golden, 'a');
    const g = m.tensor(a.rows, a.cols);
    m.kernels.gdn_gate(g, a, input(m, golden, 'A_log'), input(m, golden, 'dt_bias'));
    return { g: g.data };
  },
  gdn_beta(m, golden, { allow_neg_eigval }) {
    const b = input(m, golden, 'b');
    const beta = m.tensor(b.rows, b.cols);
    m.kernels.gdn_beta(beta, b, allow_neg_eigval ? 2 : 1);
    return { beta: beta.data };
  },
  gated_delta_rule(m, golden, { form }) {
    const [T, Hk, Dk] = tensorOf(golden, 'q').shape as [number, number, number];
    const [, H, Dv] = tensorOf(golden, 'v').shape as [number, number, number];
    const S = golden.tensors.has('state') ? input(m, golden, 'state') : m.tensor(H, Dk * Dv);
    const o = m.tensor(T, H * Dv);
    const [q, k, v, g, beta] = ['q', 'k', 'v', 'g', 'beta'].map((name) => input(m, golden, name)) as [
      Tensor,
      Tensor,
      Tensor,
      Tensor,
      Tensor,
    ];
    const shape = { Hk, H, Dk, Dv };
    if (form === 'recurrent') m.kernels.gated_delta_rule_recurrent(o, q, k, v, g, beta, S, shape);
    else m.kernels.gated_delta_rule_chunked(o, q, k, v, g, beta, S, m.tensor(H, chunkedScratch), shape);
    return { o: o.data, state_after: S.data };
  },
  attention(m, golden, { sliding_window }) {
    const [T, H, Dh] = tensorOf(golden, 'q').shape as [number, number, number];
    const [S, Hkv] = tensorOf(golden, 'k').shape as [number, number, number];
    const shape = { H, Hkv, Dh, S, window: (sliding_window as number | null) ?? S };
    const [k, v] = [m.tensor(Hkv, S * Dh), m.tensor(Hkv, S * Dh)];
    m.kernels.kv_append(k, input(m, golden, 'k'), 0, shape);
    m.kernels.kv_append(v, input(m, golden, 'v'), 0, shape);
    const o = m.tensor(T, H * Dh);
    m.kernels.attention(o, input(m, golden, 'q'), k, v, S - T, shape);
    return { o: o.data };
  },
  swiglu(m, golden) {
    const gate = input(m, golden, 'gate');
    const y = m.tensor(gate.rows, gate.cols);
    m.kernels.swiglu(y, gate, input(m, golden, 'up'));
    return { y: y.data };
  },
  softmax(m, golden) {
    const x = input(m, golden, 'x');
    const y = m.tensor(x.rows, x.cols);
    m.kernels.softmax(y, x);
    return { y: y.data };
  },
};

/** The kernels that there are goldens for. */
export const verifiableKernels: readonly string[] = Object.keys(CALLS);

/**
 * Calls a kernel with the inputs of a golden.
 * @param m fresh buffers are taken from it
 * @throws {CheckpointError} when the golden lacks an input
 */
export function callKernel(m: Bank, kernel: string, inputs: Golden, params: Parameters): Outputs {
  return CALLS[kernel]!(m, inputs, params);
}

/**
 * Calls a kernel with the inputs of a golden, and holds what it gives against its outputs.
 * @param m fresh buffers are taken from it
 * @returns the error ratio of the output with the largest one
 * @throws {CheckpointError} when the golden lacks an input or output
 */
export function verifyKernel(m: Bank, kernel: string, golden: Golden): ErrorRatio {
  const outputs = callKernel(m, kernel, golden, JSON.parse(golden.metadata.get('params') ?? '{}'));
  const ratios = Object.entries(outputs).map(([name, output]) => {
    const truth = golden.tensors.has(`${name}.truth`) ? `${name}.truth` : name; // copies have no truth of their own
    return errorRatio(output, floats(golden, name), floats(golden, truth));
  });
  return ratios.reduce((a, b) => (b.ratio > a.ratio ? b : a));
}

function floats(golden: Golden, name: string): FloatArray {
  return tensorOf(golden, name).data as FloatArray;
}

/** An input [T, ...] as rows of all the rest, a vector as one row. */
function input(m: Bank, golden: Golden, name: string): Tensor {
  const { shape } = tensorOf(golden, name);
  const data = floats(golden, name);
  const rows = shape.length === 1 ? 1 : shape[0]!;
  const tensor = m.tensor(rows, data.length / rows);
  tensor.data.set(data);
  return tensor;
}
