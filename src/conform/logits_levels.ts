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
            return whole === null ? failed('logits of the uncut text', 'none') : sameAs(whole, found.values, model, calls);
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
      const rows = rowsAtPositions(golden, found.values, model);
      const judgement = heldToTruth('logits', rows, pytorch, truth);
      if (judgement.status === 'passed') return judgement;
      const place = placeOf(rows, truth, largestError(golden), positionsOf(model), calls);
      return { ...judgement, said: `${judgement.said}: ${place}` };
    },
  };
}

function sameAs(whole: FloatArray, cut: FloatArray, { golden, tokens }: GoldenModel, calls: readonly number[]): Judgement {
  if (cut.every((logit, i) => logit === whole[i])) return passed(0, 'the same bits');
  const { error: distance } = errorRatio(cut, whole, whole);
  const most = largestError(golden);
  const ratio = (LARGEST_ERROR * distance) / most;
  if (ratio <= LARGEST_ERROR) return passed(ratio);
  const judgement = failed(`logits within ${most.toExponential(1)} of those of the uncut text`, distance.toExponential(1), ratio);
  return { ...judgement, said: `${judgement.said}: ${placeOf(cut, whole, most, [...tokens.keys()], calls)}` };
}

function largestError(golden: Golden): number {
  const [pytorch, truth] = [numbers(golden, 'logits'), numbers(golden, 'logits.truth')];
  return LARGEST_ERROR * errorRatio(pytorch, pytorch, truth).pytorch_error;
}

/** Where logits are beyond the bound, and how to find out why. @param positions of the rows in the text */
function placeOf(found: FloatArray, right: FloatArray, most: number, positions: readonly number[], calls: readonly number[]): string {
  const V = right.length / positions.length;
  const isBeyond = (row: number) => {
    const [ours, theirs] = [found, right].map((rows) => rows.subarray(row * V, (row + 1) * V)) as [FloatArray, FloatArray];
    return !ours.every((logit, i) => logit === theirs[i] || Math.abs(logit - theirs[i]!) <= most);
  };
  const beyond = positions.filter((_, row) => isBeyond(row));
  const first = beyond[0]!;
  const call = 1 + calls.findIndex((_, i) => first < calls.slice(0, i + 1).reduce((sum, n) => sum + n));
  const within = calls.length === 1 ? '' : `, in call ${call} of ${calls.length}`;
  const way = calls.length === 1 ? 'Trace it, and diff.' : 'Trace it in these calls, and diff.';
  return `first at token ${first}${within}; ${beyond.length} of ${positions.length} tokens. ${way}`;
}

function halves({ tokens: { length: T } }: GoldenModel): [number, number] {
  return [Math.ceil(T / 2), Math.floor(T / 2)];
}

function shapeOf({ tokens, golden }: GoldenModel): number[] {
  return [tokens.length, tensorOf(golden, 'logits').shape[1]!];
}

/** The rows that the golden holds: of the long texts, some. */
function positionsOf({ golden, tokens }: GoldenModel): number[] {
  return golden.tensors.has('positions') ? numbersOf(golden, 'positions') : [...tokens.keys()];
}

function rowsAtPositions(golden: Golden, logits: FloatArray, model: GoldenModel): FloatArray {
  if (!golden.tensors.has('positions')) return logits;
  const V = shapeOf(model)[1]!;
  return Float64Array.from(positionsOf(model).flatMap((t) => [...logits.subarray(t * V, (t + 1) * V)]));
}

function numbers(golden: Golden, name: string): FloatArray {
  return tensorOf(golden, name).data as FloatArray;
}
