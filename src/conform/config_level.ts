import type { OlmoHybridConfig } from '../config.ts';
import { readConfig } from '../load.ts';
import { kindOf } from '../text_file.ts';
import { readableModels } from './fixtures.ts';
import { failed, type Judgement, type Level, passed } from './protocol.ts';

const COMMON = [
  'vocab_size',
  'hidden_size',
  'intermediate_size',
  'num_hidden_layers',
  'num_attention_heads',
  'num_key_value_heads',
  'head_dim',
  'rms_norm_eps',
  'attention_bias',
  'tie_word_embeddings',
  'layer_types',
] as const satisfies readonly (keyof OlmoHybridConfig)[];
const HYBRID = [
  'linear_num_key_heads',
  'linear_num_value_heads',
  'linear_key_head_dim',
  'linear_value_head_dim',
  'linear_conv_kernel_dim',
  'linear_allow_neg_eigval',
] as const satisfies readonly (keyof OlmoHybridConfig)[];

/** What a runtime makes of config.json: the sizes, and whether and how each layer is rotated. */
export const configLevel: Level = {
  measure: null,
  writes: false,
  async cases() {
    const models = await readableModels();
    return await Promise.all(
      models.map(async ({ name, dir }) => {
        const expected = meaningOf(await readConfig(dir));
        return { request: { level: 'config', case: name, model: dir }, judge: async (fields) => compare(fields, expected) };
      }),
    );
  },
};

function meaningOf(config: OlmoHybridConfig): Record<string, unknown> {
  const keys = config.model_type === 'olmo_hybrid' ? [...COMMON, ...HYBRID] : [...COMMON, 'sliding_window' as const];
  const ropes = config.layer_types.map((type) => (type === 'linear_attention' ? null : config.rope[type]));
  return {
    ...Object.fromEntries(keys.map((key) => [key, config[key]])),
    rope_theta: ropes.map((rope) => rope?.rope_theta ?? null),
    rope_type: ropes.map((rope) => rope?.rope_type ?? null),
  };
}

function compare(fields: Readonly<Record<string, unknown>>, expected: Readonly<Record<string, unknown>>): Judgement {
  const wrong = Object.keys(expected).find((key) => JSON.stringify(fields[key]) !== JSON.stringify(expected[key]));
  return wrong === undefined ? passed() : failed(`${wrong} ${kindOf(expected[wrong])}`, kindOf(fields[wrong]));
}
