// onnxruntime-web's wasm MatMul in Node, f32: one process, one JSON object on stdout.
//   node bench/peers/onnxruntime_peer.mjs '{"M": 256, "K": 3840, "N": 3840, "threads": 2}'

import { performance } from 'node:perf_hooks';
import * as ort from 'onnxruntime-web';

const { M, K, N, threads } = JSON.parse(process.argv[2]);
const RUNS = 15;

ort.env.wasm.numThreads = threads;
ort.env.logLevel = 'error';
const session = await ort.InferenceSession.create(matMulModel(), { executionProviders: ['wasm'] });
const x = new ort.Tensor('float32', wave(M * K), [M, K]);

for (let i = 0; i < 5; i++) await session.run({ x }); // warm
const seconds = [];
for (let i = 0; i < RUNS; i++) {
  const begin = performance.now();
  await session.run({ x });
  seconds.push((performance.now() - begin) / 1000);
}
const median = seconds.sort((a, b) => a - b)[Math.floor(RUNS / 2)];
const result = { gflops: (2 * M * K * N) / median / 1e9, versions: { 'onnxruntime-web': ort.env.versions.web } };
process.stdout.write(`${JSON.stringify(result)}\n`);
await session.release();
process.exit(); // its workers would keep the process alive

function wave(length) {
  return Float32Array.from({ length }, (_, i) => Math.sin(1 + i * 0.7));
}

/** An ONNX file with one node, y = MatMul(x, w), and w inside it. Field numbers: onnx.proto3, ModelProto and what it holds. */
function matMulModel() {
  const FLOAT = 1;
  const shape = (dims) => message(2, ...dims.map((dim) => message(1, integer(1, dim)))); // TensorShapeProto
  const value = (field, name, dims) => message(field, text(1, name), message(2, message(1, integer(1, FLOAT), shape(dims))));
  const node = message(1, text(1, 'x'), text(1, 'w'), text(2, 'y'), text(4, 'MatMul'));
  const raw = Buffer.from(wave(K * N).buffer);
  const w = message(5, integer(1, K), integer(1, N), integer(2, FLOAT), text(8, 'w'), message(9, raw)); // TensorProto
  const graph = message(7, node, text(2, 'product'), w, value(11, 'x', [M, K]), value(12, 'y', [M, N]));
  return Buffer.concat([integer(1, 8), graph, message(8, integer(2, 13))]); // ir_version 8, opset 13
}

// Protocol buffers: a field is its number and wire type, then a varint, or a length and so many bytes.
function varint(n) {
  return n < 128 ? [n] : [(n % 128) + 128, ...varint(Math.floor(n / 128))];
}
function integer(field, n) {
  return Buffer.from([...varint(field * 8), ...varint(n)]);
}
function message(field, ...parts) {
  const content = Buffer.concat(parts);
  return Buffer.concat([Buffer.from([...varint(field * 8 + 2), ...varint(content.length)]), content]);
}
function text(field, string) {
  return message(field, Buffer.from(string));
}
