import { kindOf } from '../text_file.ts';
import { jsonGolden } from './fixtures.ts';
import { failed, type Judgement, type Level, passed } from './protocol.ts';

/** Of a probability: at a temperature of 0.001 a logit in float32 leaves no more digits. */
const LARGEST_DISTANCE = 1e-3;
/** In float32 a probability like this is 0, and its token may be left out. */
const NEGLIGIBLE = 1e-30;
/** A uniform number this near to the edge of a token's share may fall on either side of it. */
const CLEAR = 1e-3;
/** Which of several equal tokens are kept, and their order, is the release's own affair: it leaves both to an unstable sort. */
const TIED = /^tied\//;

interface SamplerCase {
  readonly case: string;
  readonly options: Readonly<Record<string, number>>;
  readonly observed: readonly number[];
  readonly logits: readonly (number | null)[];
  readonly ids: readonly number[];
  readonly probabilities: readonly number[];
  readonly draws: readonly (readonly [u: number, id: number])[];
}

/** Logits to a distribution, and uniform numbers to tokens. */
export const samplerLevel: Level = {
  measure: { unit: 'distance of a probability', bound: LARGEST_DISTANCE },
  writes: false,
  async cases() {
    const { rows } = await jsonGolden<{ rows: readonly SamplerCase[] }>('sampler/cases.json');
    return rows
      .filter((row) => !TIED.test(row.case))
      .map((row) => {
        const draws = row.draws.filter(([u]) => isClear(u, row.probabilities));
        const { options, observed, logits } = row;
        return {
          request: { level: 'sampler', case: row.case, options, observed, logits, uniforms: draws.map(([u]) => u) },
          judge: async (fields) => judge(fields, row, draws),
        };
      });
  },
};

function isClear(u: number, probabilities: readonly number[]): boolean {
  let edge = 0;
  return probabilities.slice(0, -1).every((probability) => {
    edge += probability;
    return Math.abs(u - edge) > CLEAR;
  });
}

function judge(fields: Readonly<Record<string, unknown>>, golden: SamplerCase, draws: SamplerCase['draws']): Judgement {
  const ids: unknown = fields['ids'];
  const least = golden.probabilities.filter((probability) => probability > NEGLIGIBLE).length;
  if (!Array.isArray(ids) || ids.length < least || JSON.stringify(ids) !== JSON.stringify(golden.ids.slice(0, ids.length))) {
    return failed(`ids ${shown(golden.ids)} to draw from, the likeliest first`, shown(ids));
  }
  const probabilities = fields['probabilities'];
  if (!Array.isArray(probabilities) || probabilities.length !== ids.length || !probabilities.every(Number.isFinite)) {
    return failed(`${ids.length} probabilities`, kindOf(probabilities));
  }
  const distance = golden.probabilities.reduce((most, p, i) => Math.max(most, Math.abs(p - ((probabilities as number[])[i] ?? 0))), 0);
  if (distance > LARGEST_DISTANCE) return failed(`probabilities within ${LARGEST_DISTANCE}`, distance.toExponential(1), distance);
  const wanted = draws.map(([, id]) => id);
  return JSON.stringify(fields['drawn']) === JSON.stringify(wanted)
    ? passed(distance)
    : failed(`${shown(wanted)} drawn`, shown(fields['drawn']), distance);
}

function shown(ids: unknown): string {
  if (!Array.isArray(ids)) return kindOf(ids);
  return `[${ids.slice(0, 5).join(', ')}${ids.length > 5 ? `, … ${ids.length} in all` : ''}]`;
}
