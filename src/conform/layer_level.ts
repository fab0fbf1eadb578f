import { createHash } from 'node:crypto';
import { join } from 'node:path';
import { diffTraces, type OpDifference, type TraceDifference } from '../diff/compare.ts';
import { openTrace } from '../diff/trace_file.ts';
import { loadModel, readConfig } from '../load.ts';
import { writeTrace } from '../trace.ts';
import { FORMAT_VERSION } from '../trace_format.ts';
import { type GoldenModel, goldenModel } from './fixtures.ts';
import { type Case, failed, type Judgement, type Level, passed } from './protocol.ts';

/** Every kind of layer and block, with all that may differ in them. */
const MODELS = [
  'nope',
  'rope',
  'gqa',
  'few_key_heads',
  'odd_sizes',
  'layer_order',
  'conv3',
  'attention_bias',
  'no_neg_eigval',
  'olmo3_sliding',
  'olmo3_yarn',
];

/** One layer at a time: a trace, in which each op is judged by its own inputs, against that of the reference kernels in float64. */
export const layerLevel: Level = {
  measure: { unit: 'relative RMS / bound of the op', bound: 1 },
  writes: true,
  async cases(folder) {
    return await Promise.all(MODELS.map(async (name) => caseOf(await goldenModel(name), folder)));
  },
};

function caseOf({ name, dir, tokens }: GoldenModel, folder: string): Case {
  const trusted = join(folder, `${name}.trusted.safetensors`);
  const tokens_sha256 = createHash('sha256')
    .update(new Uint8Array(Int32Array.from(tokens).buffer))
    .digest('hex');
  const metadata = { format_version: FORMAT_VERSION, precision: 'f32', tokens_sha256 };
  return {
    request: { level: 'layer', case: name, model: dir, tokens, metadata },
    async judge(_, output) {
      if (!(await holdsTrace(output))) return { status: 'not supported', measured: null, said: 'the file holds no layers, only logits' };
      const options = { kernels: 'reference', mode: 'strict', producer: 'conform' } as const;
      await writeTrace(trusted, dir, tokens, async () => (await loadModel(dir, { kernels: 'reference' })).model, options);
      return verdict(await diffTraces(trusted, output), (await readConfig(dir)).num_hidden_layers);
    },
  };
}

async function holdsTrace(path: string): Promise<boolean> {
  const trace = await openTrace(path);
  await trace.close();
  return [...trace.shapes.keys()].some((name) => name.startsWith('model.layers.'));
}

function verdict({ ops, first, problems, unlike_shapes: [unlike] }: TraceDifference, layers: number): Judgement {
  const worst = ops.reduce((most, op) => Math.max(most, partOfBound(op)), 0);
  if (first) {
    const { name, relative_rms, bound } = first.difference;
    const looks = first.cause?.side === 'B' ? `, as of one that ${first.cause.what}` : ''; // A is the truth
    return failed(`${name} within ${bound.toExponential(1)}`, `a relative RMS of ${relative_rms.toExponential(1)}${looks}`, worst);
  }
  // Names that only one of two has are no mistake, as long as the residual stream is there.
  if (unlike) return failed(`the shape of ${unlike.name} in docs/trace_format.md`, `[${unlike.b.join(', ')}]`);
  const compared = new Set(ops.map(({ name }) => name));
  const missing = Array.from({ length: layers }, (_, i) => `model.layers.${i}`).find((name) => !compared.has(name));
  if (missing !== undefined) {
    return failed(`a trace with ${missing}`, problems[0] ? `${problems[0].where}: ${problems[0].found}` : `${ops.length} other names`);
  }
  return passed(worst, `${ops.length} ops`);
}

/** What follows from its inputs by a recomputation is within its bound, however far it is beyond the one that its inputs alone give. */
function partOfBound({ relative_rms, bound, verdict }: OpDifference): number {
  if (relative_rms === 0) return 0;
  return verdict === 'diverges' ? relative_rms / bound : Math.min(1, relative_rms / bound);
}
