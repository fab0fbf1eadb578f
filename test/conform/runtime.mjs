// A runtime made of this library, for the tests of `conform`: node test/conform/runtime.mjs [--inject MISTAKE] [--without LEVEL,LEVEL]. JavaScript, so that every Node
// runs it unbuilt; the library is the built one.
import { rmSync, writeFileSync } from 'node:fs';
import { cp, mkdtemp, readFile, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { parseArgs } from 'node:util';
import { loadModel, readChatTemplate, readConfig, renderChat, Sampler, Tokenizer, writeSafetensors } from '../../dist/index.js';
import { writeTrace } from '../../dist/trace.js';
import { readGolden } from '../../dist/verify_golden.js';
import { callKernel } from '../../dist/kernel_calls.js';
import { referenceKernels } from '../../dist/reference/index.js';
import { ReferenceBank } from '../../dist/runtime/reference_bank.js';
import { MISTAKES } from './mistakes.mjs';

const { values } = parseArgs({ options: { inject: { type: 'string' }, without: { type: 'string', default: '' } } });
const mistake = values.inject === undefined ? {} : MISTAKES[values.inject];
const unsupported = values.without.split(',');
Object.assign(referenceKernels, mistake.op?.(referenceKernels));

/** A folder whose config.json is read with the mistake. */
async function folderOf(dir) {
  if (!mistake.config) return dir;
  const copy = await mkdtemp(join(tmpdir(), 'olmo-hybrid-mistaken-'));
  await cp(dir, copy, { recursive: true });
  await writeFile(join(copy, 'config.json'), JSON.stringify(mistake.config(JSON.parse(await readFile(join(dir, 'config.json'), 'utf8')))));
  process.once('exit', () => rmSync(copy, { recursive: true, force: true }));
  return copy;
}

/** Makes the mistakes that only the model makes, not its ops by themselves. */
async function inModel(use) {
  const right = { ...referenceKernels };
  Object.assign(referenceKernels, mistake.model?.(right));
  try {
    return await use();
  } finally {
    Object.assign(referenceKernels, right);
  }
}

function write(path, tensors) {
  writeFileSync(path, Buffer.concat(writeSafetensors(tensors)));
}

async function logits({ model: folder, tokens, calls, save_after, discarded, output }) {
  const dir = await folderOf(folder);
  const { model } = await loadModel(dir, {
    kernels: 'reference',
    context: tokens.length + (discarded?.length ?? 0),
    prefill_chunk: Math.max(...calls),
  });
  const V = model.config.vocab_size;
  const rows = new Float32Array(tokens.length * V);
  let done = 0;
  for (const n of calls) {
    model.forwardAll(tokens.slice(done, done + n), rows.subarray(done * V, (done + n) * V));
    done += n;
    if (done !== save_after) continue;
    const saved = (mistake.snapshot ?? ((of) => of.snapshot()))(model);
    model.forward(discarded);
    model.restore(saved);
  }
  write(output, [{ name: 'logits', dtype: 'F32', shape: [tokens.length, V], data: rows }]);
  return {};
}

const LEVELS = {
  async config({ model }) {
    const config = await readConfig(await folderOf(model));
    const ropes = config.layer_types.map((type) => (type === 'linear_attention' ? null : config.rope[type]));
    return { ...config, rope_theta: ropes.map((r) => r?.rope_theta ?? null), rope_type: ropes.map((r) => r?.rope_type ?? null) };
  },
  async tokenizer({ model, texts, ids }) {
    const tokenizer = await Tokenizer.fromFolder(model);
    if (ids) return { texts: ids.map((each) => tokenizer.decode(each)) };
    return { ids: texts.map((text) => (mistake.ids ?? ((all) => all))(tokenizer.encode(text))) };
  },
  async template({ model, messages, tools, add_generation_prompt }) {
    const text = await renderChat(await readChatTemplate(model), { messages, tools, add_generation_prompt });
    return { text: (mistake.text ?? ((all) => all))(text) };
  },
  async op({ op, params, inputs, output }) {
    const golden = await readGolden(inputs);
    const outputs = Object.entries(callKernel(new ReferenceBank(1), op, Object.fromEntries(golden.tensors), params));
    const tensors = outputs.map(([name, data]) => ({ name, dtype: 'F64', shape: shapeOf(name, golden.tensors), data }));
    write(output, tensors);
    return {};
  },
  async layer({ model: folder, tokens, output }) {
    const model = await folderOf(folder);
    const load = async () => (await loadModel(model, { kernels: 'reference', prefill_chunk: tokens.length })).model;
    await inModel(() => writeTrace(output, model, tokens, load, { kernels: 'reference', mode: 'strict', producer: 'test' }));
    return {};
  },
  prefill: (request) => inModel(() => logits(request)),
  decode: (request) => inModel(() => logits(request)),
  prefill_decode: (request) => inModel(() => logits(request)),
  state: (request) => inModel(() => logits(request)),
  async sampler({ options, observed, logits, uniforms }) {
    const scores = Float64Array.from(logits, (logit) => logit ?? -Infinity);
    const make = mistake.sampler ?? ((_, V, its, random) => new Sampler(V, its, random));
    const distribution = samplerOf(make, scores, options, observed, 0).distribution(scores);
    const drawn = uniforms.map((u) => samplerOf(make, scores, options, observed, u).sample(scores));
    return { ids: distribution.map(({ id }) => id), probabilities: distribution.map(({ probability }) => probability), drawn };
  },
};

/** The shape of an op's output, from those of its inputs. */
function shapeOf(output, tensors) {
  const shape = (name) => tensors.get(name)?.shape;
  if (output === 'state_after') return shape('state') ?? [...shape('v').slice(1, 2), ...shape('k').slice(2), ...shape('v').slice(2)];
  if (output === 'o') return tensors.has('beta') ? shape('v') : shape('q');
  if (tensors.has('weight') && shape('weight').length === 2) return [shape('x')[0], shape('weight')[0]];
  return shape('x') ?? shape('gate') ?? shape('a') ?? shape('b');
}

function samplerOf(make, scores, options, observed, u) {
  const sampler = make(Sampler, scores.length, options, { uniform: () => u });
  for (const id of observed) sampler.observe(id);
  return sampler;
}

async function answer(request) {
  try {
    return unsupported.includes(request.level) ? { not_supported: 'left out' } : await LEVELS[request.level](request);
  } catch (error) {
    return { error: error.message };
  }
}

for await (const line of createInterface({ input: process.stdin })) console.log(JSON.stringify(await answer(JSON.parse(line))));
