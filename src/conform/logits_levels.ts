import type { FloatArray } from '../runtime/tensor.ts';
import { errorRatio, type Golden, numbersOf, tensorOf } from '../verify_golden.ts';
import { readAnswer } from './answer_file.ts';
import { ERROR_MEASURE, heldToTruth, LARGEST_ERROR } from './error_bound.ts';
import { type GoldenModel, goldenModel, readableModels } from './fixtures.ts';
import { type Case, failed, type Judgement, type Level, type LevelName, passed } from './protocol.ts';

const DECODED = [
  'nope',
  'rope',
  'gqa',
  'few_key_heads',
  'odd_sizes',
  'layer_order',
  'conv3',
  'no_neg_eigval',
  'olmo3_sliding',
  'olmo3_yarn',
];
const CUT = ['nope', 'rope', 'few_key_heads', 'conv3', 'olmo3_sliding'];
/** Tokens of one call: alone, fewer than the convolution is wide, more, and as many as a chunk of PyTorch's delta rule. */
const CUTS = [1, 2, 7, 64];

/** All tokens in one call. */
export const prefillLevel: Level = {
  measure: ERROR_MEASURE,
  writes: true,
  async cases() {
    const models = await readableModels();
    return models.map((model) => logitsCase('prefill', model, [model.tokens.length]));
  },
};

/** Half of the tokens in one call, the others one by one. */
export const decodeLevel: Level = {
  measure: ERROR_MEASURE,
  writes: true,
  async cases() {
    const models = await Promise.all(DECODED.map(goldenModel));
    return models.map((model) => {
      const [first, rest] = halves(model);
      return logitsCase('decode', model, [first, ...Array<number>(rest).fill(1)]);
    });
  },
};

/** State save and restore: half of the tokens, save, other tokens on top, restore, the other half. */
export const stateLevel: Level = {
  measure: ERROR_MEASURE,
  writes: true,
  async cases() {
    const models = await Promise.all(CUT.map(goldenModel));
    return models.map((model) => {
      const calls = halves(model);
      const discarded = model.tokens.slice(0, calls[0]).reverse();
      return logitsCase('state', model, calls, { save_after: calls[0], discarded });
    });
  },
};

/** The runtime against itself: wherever a text is cut, the logits are the same but for rounding. */
export const prefillDecodeLevel: Level = {
  measure: { unit: "distance / PyTorch's error", bound: LARGEST_ERROR },
  writes: true,
  async cases() {
    const models = await Promise.all(CUT.map(goldenModel));
    return models.flatMap((model) => {
      const { dir, tokens, name } = model;
      const T = tokens.length;
      let whole: FloatArray | null = null;
      const uncut: Case = {
        request: { level: 'prefill_decode', case: `${name}, uncut`, model: dir, tokens, calls: [T] },
        async judge(_, output) {
          const found = await readAnswer(output, LOGITS, shapeOf(model));
          if ('failure' in found) return found.failure;
          whole = found.values;
          return passed();
        },
      };
      const cuts = CUTS.filter((cut) => cut < T).map((cut): Case => {
        const calls = Array.from({ length: Math.ceil(T / cut) }, (_, i) => Math.min(cut, T - i * cut));
        return {
          request: { level: 'prefill_decode', case: `${name}, ${cut} at a time`, model: dir, tokens, calls },
          async judge(_, output) {
            const found = await readAnswer(output, LOGITS, shapeOf(model));
            if ('failure' in found) return found.failure;
            return whole === null ? failed('logits of the uncut text', 'none') : sameAs(whole, found.values, model.golden);
          },
        };
      });
      return [uncut, ...cuts];
    });
  },
};

/** A trace has them by the name of the module. */
const LOGITS = ['logits', 'lm_head'];

function logitsCase(level: LevelName, model: GoldenModel, calls: readonly number[], more: Readonly<Record<string, unknown>> = {}): Case {
  const { name, dir, tokens, golden } = model;
  return {
    request: { level, case: name, model: dir, tokens, calls, ...more },
    async judge(_, output) {
      const found = await readAnswer(output, LOGITS, shapeOf(model));
      if ('failure' in found) return found.failure;
      const [pytorch, truth] = [numbers(golden, 'logits'), numbers(golden, 'logits.truth')];
      return heldToTruth('logits', rowsAtPositions(golden, found.values, model), pytorch, truth);
    },
  };
}

function sameAs(whole: FloatArray, cut: FloatArray, golden: Golden): Judgement {
  if (cut.every((logit, i) => logit === whole[i])) return passed(0, 'the same bits');
  const { pytorch_error } = errorRatio(numbers(golden, 'logits'), numbers(golden, 'logits'), numbers(golden, 'logits.truth'));
  const { error: distance } = errorRatio(cut, whole, whole);
  const ratio = distance / pytorch_error;
  if (ratio <= LARGEST_ERROR) return passed(ratio);
  const most = (LARGEST_ERROR * pytorch_error).toExponential(1);
  return failed(`logits within ${most} of those of the uncut text`, distance.toExponential(1), ratio);
}

function halves({ tokens: { length: T } }: GoldenModel): [number, number] {
  return [Math.ceil(T / 2), Math.floor(T / 2)];
}

function shapeOf({ tokens, golden }: GoldenModel): number[] {
  return [tokens.length, tensorOf(golden, 'logits').shape[1]!];
}

/** The rows that the golden holds: of the long texts, some. */
function rowsAtPositions(golden: Golden, logits: FloatArray, model: GoldenModel): FloatArray {
  if (!golden.tensors.has('positions')) return logits;
  const V = shapeOf(model)[1]!;
  return Float64Array.from(numbersOf(golden, 'positions').flatMap((t) => [...logits.subarray(t * V, (t + 1) * V)]));
}

function numbers(golden: Golden, name: string): FloatArray {
  return tensorOf(golden, name).data as FloatArray;
}
