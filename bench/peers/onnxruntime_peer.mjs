// onnxruntime-web's wasm MatMul in Node, f32: one process, one JSON object on stdout.
//   node bench/peers/onnxruntime_peer.mjs '{"M": 256, "K": 3840, "N": 3840, "threads": 2}'

import { performance } from 'node:perf_hooks';
import * as ort from 'onnxruntime-web';

const { M, K, N, threads } = JSON.parse(process.argv[2]);
const RUNS = 15;

// The weight is a constant of the graph (an initializer), so that the engine may pack it once, as ours does.
const graph = matMulModel(M, K, N);
ort.env.wasm.numThreads = threads;
ort.env.logLevel = 'error';
const session = await ort.InferenceSession.create(graph, { executionProviders: ['wasm'], graphOptimizationLevel: 'all' });
const x = new ort.Tensor('float32', wave(M * K), [M, K]);

for (let i = 0; i < 5; i++) await session.run({ x }); // warm
const times = [];
for (let i = 0; i < RUNS; i++) {
  const begin = performance.now();
  await session.run({ x });
  times.push((performance.now() - begin) / 1000);
}
times.sort((a, b) => a - b);
process.stdout.write(`${JSON.stringify({ gflops: (2 * M * K * N) / times[RUNS >> 1] / 1e9, versions: { 'onnxruntime-web': ort.env.versions.web } })}\n`);
await session.release();
process.exit();

function wave(n) {
  return Float32Array.from({ length: n }, (_, i) => Math.sin(1 + i * 0.7));
}

/** An ONNX file with one node, y = MatMul(x, w), written field by field: onnx.proto3, messages ModelProto, GraphProto, TensorProto. */
function matMulModel(M, K, N) {
  const FLOAT = 1;
  const dimension = (n) => bytes(1, number(1, n));
  const value = (name, shape) => [
    ...text(1, name),
    ...bytes(2, bytes(1, [...number(1, FLOAT), ...bytes(2, shape.flatMap(dimension))])),
  ];
  const node = [...text(1, 'x'), ...text(1, 'w'), ...text(2, 'y'), ...text(4, 'MatMul')];
  const weight = Buffer.from(wave(K * N).buffer);
  const initializer = join([...number(1, K), ...number(1, N), ...number(2, FLOAT), ...text(8, 'w')], key(9, 2), varint(weight.length), weight);
  const body = join(
    bytes(1, node),
    text(2, 'product'),
    key(5, 2),
    varint(initializer.length),
    initializer,
    bytes(11, value('x', [M, K])),
    bytes(12, value('y', [M, N])),
  );
  return join(number(1, 8), key(7, 2), varint(body.length), body, bytes(8, number(2, 13)));
}
function join(...parts) {
  return Buffer.concat(parts.map((part) => Buffer.from(part)));
}
function varint(n) {
  return n < 128 ? [n] : [(n % 128) + 128, ...varint(Math.floor(n / 128))];
}
function key(field, type) {
  return varint(field * 8 + type);
}
function number(field, n) {
  return [...key(field, 0), ...varint(n)];
}
function bytes(field, content) {
  return [...key(field, 2), ...varint(content.length), ...content];
}
function text(field, string) {
  return bytes(field, [...Buffer.from(string)]);
}
