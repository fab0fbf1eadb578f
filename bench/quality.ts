import { logSumExp } from '../dist/log_probability.js';
import { allLogits } from '../dist/verify.js';
import { mkdir, writeFile } from 'node:fs/promises';
import { embeddedModel, loadModel, openFile, readSafetensors, readTensor, type OlmoHybridForCausalLM } from '../dist/index.js';
import { packageFile } from '../dist/package_files.js';

// What 8 and 4 bits cost: the embedded model over its held-out text in every format and mode, against the weights as stored in strict mode.

/** As `verify` reads the text: each window from an empty state. */
const WINDOW = 512;
const VARIANTS = [
  [undefined, 'strict'],
  [undefined, 'fast'],
  ['q8', 'strict'],
  ['q8', 'fast'],
  ['q4', 'strict'],
  ['q4', 'fast'],
] as const;

/** Sums over predicted tokens. */
interface Loss {
  readonly name: string;
  readonly model: OlmoHybridForCausalLM;
  nats: number;
  divergence: number;
}

/** log p of every token after each token of a window, [T, V]. */
function logProbabilities(model: OlmoHybridForCausalLM, ids: readonly number[]): Float64Array {
  const V = model.config.vocab_size;
  const logits = allLogits(model, ids);
  for (let t = 0; t < ids.length; t++) {
    const row = logits.subarray(t * V, (t + 1) * V);
    const log_sum = logSumExp(row);
    for (let id = 0; id < V; id++) row[id] = row[id]! - log_sum;
  }
  return logits;
}

async function heldOut(): Promise<number[]> {
  const source = await openFile(packageFile('golden/demo/expected.safetensors'));
  const { tensors } = await readSafetensors(source);
  const ids = Array.from(await readTensor(tensors.get('heldout_ids')!), Number);
  await source.close();
  return ids;
}

const losses: Loss[] = [];
for (const [weights, mode] of VARIANTS) {
  const { model } = await loadModel(embeddedModel, { weights, mode, context: WINDOW });
  losses.push({ name: `${weights ?? 'as stored'}, ${mode}`, model, nats: 0, divergence: 0 });
}
const ids = await heldOut();
let predicted = 0;
for (let begin = 0; begin < ids.length; begin += WINDOW) {
  const window = ids.slice(begin, begin + WINDOW);
  predicted += window.length - 1;
  const [exact, ...others] = losses.map(({ model }) => logProbabilities(model, window)) as [Float64Array, ...Float64Array[]];
  [exact, ...others].forEach((log_p, i) => {
    const V = log_p.length / window.length;
    for (let t = 0; t + 1 < window.length; t++) {
      losses[i]!.nats -= log_p[t * V + window[t + 1]!]!;
      for (let id = t * V; id < (t + 1) * V; id++) losses[i]!.divergence += Math.exp(exact[id]!) * (exact[id]! - log_p[id]!);
    }
  });
}

const [stored] = losses as [Loss, ...Loss[]];
const rows = losses.map(({ name, nats, divergence }) => {
  const perplexity = Math.exp(nats / predicted);
  const more = 100 * (Math.exp((nats - stored.nats) / predicted) - 1);
  return `| ${name} | ${perplexity.toFixed(4)} | ${more >= 0 ? '+' : ''}${more.toFixed(3)}% | ${(divergence / predicted).toExponential(2)} |`;
});
const report = [
  '# What quantised weights cost',
  '',
  `The embedded model (2.1 million parameters, stored in bf16) over ${predicted} tokens of held-out text; written by \`npm run quality\`.`,
  'KL: mean divergence of the next-token distribution from that of the weights as stored in strict mode, in nats. The released 7B was not run: what',
  'these formats cost it is not known.',
  '',
  '| weights, mode | perplexity | change | KL |',
  '|---|---|---|---|',
  ...rows,
  '',
].join('\n');
const results = new URL('../bench/results/', import.meta.url);
await mkdir(results, { recursive: true });
await writeFile(new URL('quality.md', results), report);
process.stdout.write(report);
