// llama.cpp, native, by node-llama-cpp and the binaries of its npm package: one GGUF, one process, one JSON object on stdout.
//   node bench/peers/llama_cpp_peer.mjs '{"path": "x.gguf", "threads": 2, "prefills": [512, 2048], "decode_after": 512, "decoded": 64}'

import { statSync } from 'node:fs';
import { performance } from 'node:perf_hooks';
import { getLlama, getModuleVersion } from 'node-llama-cpp';

const { path, threads, prefills, decode_after, decoded } = JSON.parse(process.argv[2]);
const REPEATS = 3;
const BATCH = 512;

const llama = await getLlama({ gpu: false, build: 'never', skipDownload: true, maxThreads: threads, logLevel: 'error' });
const model = await llama.loadModel({ modelPath: path, gpuLayers: 0 });
const contextSize = Math.max(...prefills, decode_after) + decoded + 1;
const context = await model.createContext({ contextSize, batchSize: BATCH, threads: { ideal: threads, min: threads } });
const prompt = (T) => Array.from({ length: T }, (_, i) => (i * 7) % 32768);

// llama_decode by itself, as llama-bench times it. The package's own loop samples in between, which takes part of a millisecond for each token
// and is measured apart; the exact version of the package is pinned, so its inside may be called.
const native = context._ctx;
native.setThreads(threads);

/** Tokens at a position of the sequence, with the logits of the last one. */
async function feed(tokens, position) {
  for (let begin = 0; begin < tokens.length; begin += BATCH) {
    const batch = Uint32Array.from(tokens.slice(begin, begin + BATCH));
    const last = begin + BATCH >= tokens.length ? [batch.length - 1] : [];
    native.initBatch(batch.length);
    native.addToBatch(0, position + begin, batch, Uint32Array.from(last));
    await native.decodeBatch();
  }
}

async function seconds(work) {
  const begin = performance.now();
  await work();
  return (performance.now() - begin) / 1000;
}

function prefilled(T) {
  native.disposeSequence(0);
  return seconds(() => feed(prompt(T), 0));
}

function decodedAfter(T, count) {
  return seconds(async () => {
    for (let i = 0; i < count; i++) await feed([i], T + i);
  });
}

/** The same through the package: greedy, each token fed back. */
async function decodedByApi(T, count) {
  native.disposeSequence(0);
  const tokens = context.getSequence().evaluate(prompt(T), { temperature: 0, yieldEogToken: true });
  await tokens.next();
  return seconds(async () => {
    for (let i = 0; i < count; i++) await tokens.next();
  });
}

await prefilled(decode_after); // warm
await decodedAfter(decode_after, 8);
const prefill = {};
for (const T of prefills) {
  const times = [];
  for (let i = 0; i < (T > 1000 ? 1 : REPEATS); i++) times.push(await prefilled(T));
  prefill[T] = { tokens_per_second: T / times.sort((a, b) => a - b)[Math.floor(times.length / 2)] };
}
await prefilled(decode_after);
const decode = { tokens_per_second: decoded / (await decodedAfter(decode_after, decoded)) };
const decode_by_api = { tokens_per_second: decoded / (await decodedByApi(decode_after, decoded)) };

const result = {
  prefill,
  decode,
  decode_by_api,
  file_bytes: statSync(path).size,
  versions: { 'node-llama-cpp': await getModuleVersion(), 'llama.cpp': llama.llamaCppRelease.release },
  build: llama.buildType,
  system_info: llama.systemInfo,
  threads: native.getThreads(),
  flash_attention: context.flashAttention,
  batch: context.batchSize,
  peak_rss_bytes: process.resourceUsage().maxRSS * 1024,
};
process.stdout.write(`${JSON.stringify(result)}\n`);
await llama.dispose();
