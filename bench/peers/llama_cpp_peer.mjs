// llama.cpp, native, by node-llama-cpp and the binaries of its npm package: one GGUF, one process, one JSON object on stdout.
//   node bench/peers/llama_cpp_peer.mjs '{"path": "x.gguf", "threads": 2, "prefills": [512, 2048], "decode_after": 512, "decoded": 64}'

import { statSync } from 'node:fs';
import { performance } from 'node:perf_hooks';
import { getLlama, getModuleVersion } from 'node-llama-cpp';

const { path, threads, prefills, decode_after, decoded } = JSON.parse(process.argv[2]);
const REPEATS = 3;
const GREEDY = { temperature: 0, yieldEogToken: true };

const llama = await getLlama({ gpu: false, build: 'never', skipDownload: true, maxThreads: threads, logLevel: 'error' });
const model = await llama.loadModel({ modelPath: path, gpuLayers: 0 });
const context = await model.createContext({ contextSize: Math.max(...prefills) + decoded + 1, threads: { ideal: threads, min: threads } });
const sequence = context.getSequence();
const prompt = (T) => Array.from({ length: T }, (_, i) => (i * 7) % 32768);

const seconds = async (work) => {
  const begin = performance.now();
  await work();
  return (performance.now() - begin) / 1000;
};
const median = (values) => values.sort((a, b) => a - b)[Math.floor(values.length / 2)];

/** A prompt from an empty cache, with the logits of its last token; then `more` tokens, one by one. Returns the seconds of both. */
async function run(T, more) {
  await sequence.clearHistory();
  const tokens = sequence.evaluate(prompt(T), GREEDY);
  const prefill = await seconds(() => tokens.next());
  const decode = await seconds(async () => {
    for (let i = 0; i < more; i++) await tokens.next();
  });
  await tokens.return();
  return { prefill, decode };
}

await run(decode_after, 8); // warm
const prefill = {};
for (const T of prefills) {
  const times = [];
  for (let i = 0; i < (T > 1000 ? 1 : REPEATS); i++) times.push((await run(T, 0)).prefill);
  prefill[T] = { tokens_per_second: T / median(times) };
}
const { decode } = await run(decode_after, decoded);

const result = {
  prefill,
  decode: { tokens_per_second: decoded / decode },
  file_bytes: statSync(path).size,
  versions: { 'node-llama-cpp': await getModuleVersion(), 'llama.cpp': llama.llamaCppRelease.release },
  build: llama.buildType,
  system_info: llama.systemInfo,
  threads: context.currentThreads,
  flash_attention: context.flashAttention,
  batch: context.batchSize,
  peak_rss_bytes: process.resourceUsage().maxRSS * 1024,
};
process.stdout.write(`${JSON.stringify(result)}\n`);
await llama.dispose();
