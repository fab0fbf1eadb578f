import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { parseConfig } from '../src/config.ts';
import { ConfigError } from '../src/errors.ts';
import { goldenModel } from './support/models.ts';

/** The sizes of allenai/Olmo-Hybrid-7B and OLMo 3 7B, written from their model cards. */
const RELEASE = {
  model_type: 'olmo_hybrid',
  vocab_size: 100352,
  hidden_size: 3840,
  intermediate_size: 11008,
  num_hidden_layers: 32,
  num_attention_heads: 30,
  eos_token_id: 100257,
  rope_parameters: null,
};
const OLMO3 = {
  model_type: 'olmo3',
  vocab_size: 100278,
  hidden_size: 4096,
  intermediate_size: 11008,
  num_hidden_layers: 32,
  num_attention_heads: 32,
  max_position_embeddings: 65536,
  sliding_window: 4096,
  rope_theta: 500000,
  rope_scaling: {
    rope_type: 'yarn',
    factor: 8,
    original_max_position_embeddings: 8192,
    attention_factor: 1.2079441541679836,
    beta_fast: 32,
    beta_slow: 1,
  },
};

const parse = (json: object) => parseConfig(JSON.stringify(json));

function problemsOf(json: object): string[] {
  try {
    parse(json);
  } catch (error) {
    expect(error).toBeInstanceOf(ConfigError);
    return (error as ConfigError).problems.map(({ where }) => /"(.*)"/.exec(where)![1]!);
  }
  return [];
}

test('defaults are those of the release', () => {
  const config = parse(RELEASE);
  expect(config).toMatchObject({
    num_key_value_heads: 30,
    head_dim: 128,
    linear_num_key_heads: 30,
    linear_num_value_heads: 30,
    linear_key_head_dim: 96,
    linear_value_head_dim: 192,
    linear_conv_kernel_dim: 4,
    linear_allow_neg_eigval: true,
    rms_norm_eps: 1e-6,
    max_position_embeddings: 65536,
    eos_token_id: [100257],
    rope: { full_attention: null },
  });
  expect(config.layer_types.filter((type) => type === 'full_attention')).toHaveLength(8);
  expect(config.layer_types.slice(0, 4)).toEqual(['linear_attention', 'linear_attention', 'linear_attention', 'full_attention']);
});

describe('RoPE or NoPE', () => {
  test.each([
    ['absent', {}],
    ['null', { rope_parameters: null }],
    ['a null type', { rope_parameters: { rope_type: null } }],
    ['a null theta', { rope_parameters: { rope_theta: null, rope_type: 'default' } }],
    ['a null theta beside one at the top', { rope_theta: 10000, rope_parameters: { rope_theta: null } }],
  ])('%s is NoPE', (_, keys) => {
    const { rope_parameters: _released, ...sizes } = RELEASE;
    expect(parse({ ...sizes, ...keys }).rope.full_attention).toBeNull();
  });

  test.each([
    ['in rope_parameters', { rope_parameters: { rope_theta: 500000, rope_type: 'default' } }],
    ['at the top', { rope_theta: 500000, rope_parameters: null }],
  ])('a theta %s is RoPE', (_, keys) => {
    expect(parse({ ...RELEASE, ...keys }).rope.full_attention).toMatchObject({ rope_type: 'default', rope_theta: 500000 });
  });

  test('OLMo 3: YaRN of the top level is for the full layers only', () => {
    const { rope, layer_types } = parse(OLMO3);
    expect(rope.full_attention).toMatchObject({ rope_type: 'yarn', factor: 8, rope_theta: 500000, attention_factor: 1.2079441541679836 });
    expect(rope.sliding_attention).toMatchObject({ rope_type: 'default', rope_theta: 500000 });
    expect(layer_types.slice(0, 4)).toEqual(['sliding_attention', 'sliding_attention', 'sliding_attention', 'full_attention']);
  });

  test('OLMo 3: nested by layer type', () => {
    const config = JSON.parse(readFileSync(join(goldenModel('olmo3_nested'), 'config.json'), 'utf8'));
    const { full_attention, sliding_attention } = config.rope_parameters;
    const { rope } = parse(config);
    expect(rope.full_attention!.rope_theta).toBe(full_attention.rope_theta);
    expect(rope.sliding_attention!.rope_theta).toBe(sliding_attention.rope_theta);
  });

  test('YaRN without its sizes, or a kind that is not computed', () => {
    expect(problemsOf({ ...OLMO3, rope_scaling: { rope_type: 'yarn' } })).toEqual(['rope_parameters.full_attention.factor']);
    expect(problemsOf({ ...OLMO3, rope_scaling: { rope_type: 'llama3' } })).toEqual(['rope_parameters.full_attention.rope_type']);
  });
});

describe('a config that is refused', () => {
  test.each<[string, object, string[]]>([
    ['another architecture', { model_type: 'llama' }, ['model_type']],
    ['no architecture', { model_type: undefined }, ['model_type']],
    ['missing sizes, all at once', { hidden_size: undefined, vocab_size: undefined }, ['vocab_size', 'hidden_size']],
    ['a string', { hidden_size: '3840' }, ['hidden_size']],
    ['a negative size', { intermediate_size: -1 }, ['intermediate_size']],
    ['a fraction', { hidden_size: 38.5 }, ['hidden_size']],
    ['1e9 layers', { num_hidden_layers: 1e9 }, ['num_hidden_layers']],
    ['an unknown layer type', { num_hidden_layers: 2, layer_types: ['full_attention', 'sliding_attention'] }, ['layer_types']],
    ['too few layer types', { layer_types: ['full_attention'] }, ['layer_types']],
    ['KV heads that do not divide', { num_key_value_heads: 7 }, ['num_key_value_heads']],
    ['key heads that do not divide', { linear_num_key_heads: 4 }, ['linear_num_key_heads']],
    ['another activation', { hidden_act: 'gelu' }, ['hidden_act']],
    ['a boolean that is none', { attention_bias: 'no' }, ['attention_bias']],
    ['an eps below 0', { rms_norm_eps: -1e-6 }, ['rms_norm_eps']],
    ['an eos that is no id', { eos_token_id: [1, 'x'] }, ['eos_token_id']],
    ['a null that HF refuses', { head_dim: null, tie_word_embeddings: null }, ['head_dim', 'tie_word_embeddings']],
    ['an odd head with RoPE', { head_dim: 127, rope_parameters: { rope_theta: 10000 } }, ['head_dim']],
    ['a key that changes the mathematics', { final_logit_softcapping: 30, clip_qkv: 8 }, ['final_logit_softcapping', 'clip_qkv']],
  ])('%s', (_, keys, problems) => {
    expect(problemsOf({ ...RELEASE, ...keys })).toEqual(problems);
  });

  test.each(['', '{', '[]', 'null', '3', '{"model_type": NaN}'])('text that is no JSON object: %j', (text) => {
    expect(() => parseConfig(text, 'some/config.json')).toThrow(ConfigError);
    expect(() => parseConfig(text, 'some/config.json')).toThrow(/^some\/config\.json/);
  });

  test('any JSON at any key gives a config or a ConfigError', () => {
    const keys = fc.constantFrom(...Object.keys(parse(RELEASE)), 'rope_parameters', 'rope_scaling', 'rope_theta', '__proto__');
    fc.assert(
      fc.property(fc.dictionary(keys, fc.jsonValue()), fc.constantFrom(RELEASE, OLMO3), (changes, config) => {
        try {
          parse({ ...config, ...changes });
        } catch (error) {
          expect(error).toBeInstanceOf(ConfigError);
        }
      }),
      { numRuns: 500 },
    );
  });
});

test('ids that no text ends with are left out', () => {
  expect(parse({ ...RELEASE, eos_token_id: [-1, 5, 100352] }).eos_token_id).toEqual([5]);
  expect(parse({ ...RELEASE, eos_token_id: -1, pad_token_id: -1 })).toMatchObject({ eos_token_id: [] });
});

test('keys of RoPE that are passed over are named', () => {
  const unknown = (json: object) => parse(json).unknown_keys;
  expect(unknown({ ...RELEASE, rope_parameters: { rope_type: 'default', rope_theta: 1e4, factor: 8, mrope_section: [1] } })).toEqual([
    'rope_parameters.factor',
    'rope_parameters.mrope_section',
  ]);
  expect(unknown({ ...RELEASE, rope_parameters: { full_attention: { rope_theta: 1e4 } } })).toEqual(['rope_parameters.full_attention']);
  const yarn = { ...OLMO3.rope_scaling, truncate: false, mscale: 1, low_freq_factor: 1 };
  expect(unknown({ ...OLMO3, rope_scaling: yarn })).toEqual(['rope_parameters.full_attention.low_freq_factor']);
  expect(unknown({ ...OLMO3, rope_scaling: null, rope_parameters: { rope_type: 'yarn', rope_theta: 1e4 } })).toEqual([
    'rope_parameters.rope_type',
    'rope_parameters.rope_theta',
  ]);
});

test('unknown keys are kept for `inspect`; neutral ones of other architectures are taken', () => {
  expect(parse({ ...RELEASE, some_new_key: 1, logit_scale: 1, clip_qkv: null, use_cache: true }).unknown_keys).toEqual(['some_new_key']);
});
