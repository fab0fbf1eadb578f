import { readFileSync } from 'node:fs';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { ArgumentError } from '../src/errors.ts';
import { Random, splitmix64, xoshiro128starstar } from '../src/random.ts';
import { exp } from '../src/exact_math.ts';
import { type Candidate, Sampler, type SamplingOptions } from '../src/sampler.ts';

interface SamplerCase {
  readonly case: string;
  readonly options: SamplingOptions;
  readonly observed: readonly number[];
  readonly logits: readonly (number | null)[];
  readonly ids: readonly number[];
  readonly probabilities: readonly number[];
  readonly draws: readonly (readonly [u: number, id: number])[];
}

interface RandomVectors {
  readonly splitmix64: readonly { readonly seed: string; readonly outputs: readonly string[] }[];
  readonly xoshiro128starstar: { readonly state: readonly number[]; readonly outputs: readonly number[] };
  readonly uniform: readonly { readonly seed: string; readonly outputs: readonly number[] }[];
}

function golden<Rows>(name: string): Rows {
  return JSON.parse(readFileSync(new URL(`../golden/sampler/${name}.json`, import.meta.url), 'utf8')).rows;
}

/** A source of one number, for asking what is drawn at it. */
const always = (u: number) => ({ uniform: () => u });

const unused = {
  uniform(): number {
    throw new Error('nothing may be drawn here');
  },
};

/** Steps between neighbouring f64 from a to b, both positive. */
function ulps(a: number, b: number): number {
  const [bits_a, bits_b] = new BigInt64Array(Float64Array.of(a, b).buffer);
  return Math.abs(Number(bits_a! - bits_b!));
}

function problemsOf(action: () => unknown): string[] {
  try {
    action();
  } catch (error) {
    if (error instanceof ArgumentError) return error.problems.map(({ where, found }) => `${where}: ${found}`);
    throw error;
  }
  return [];
}

describe('random numbers', () => {
  const vectors = golden<RandomVectors>('random');

  test('SplitMix64 gives the published outputs', () => {
    for (const { seed, outputs } of vectors.splitmix64) {
      const found = outputs.map((_, n) => splitmix64(BigInt.asUintN(64, BigInt(seed) + BigInt(n) * 0x9e3779b97f4a7c15n)));
      expect(found.map(String)).toEqual(outputs);
    }
    // The first of the reference C program for this seed, as several libraries' tests quote it.
    expect(splitmix64(1477776061723855037n)).toBe(1985237415132408290n);
  });

  test('xoshiro128** gives the published outputs', () => {
    const state = Uint32Array.from(vectors.xoshiro128starstar.state);
    const found = vectors.xoshiro128starstar.outputs.map(() => xoshiro128starstar(state));
    expect(found).toEqual(vectors.xoshiro128starstar.outputs);
    // The reference C program's for the state 1, 2, 3, 4, as several libraries' tests quote it.
    expect(found.slice(0, 6)).toEqual([11520, 0, 5927040, 70819200, 2031721883, 1637235492]);
  });

  test('seeds give the uniform numbers of the golden', () => {
    for (const { seed, outputs } of vectors.uniform) {
      const random = new Random(BigInt(seed));
      expect(outputs.map(() => random.uniform())).toEqual(outputs);
      if (!Number.isSafeInteger(Number(seed))) continue;
      expect(new Random(Number(seed)).uniform()).toBe(outputs[0]);
    }
  });

  test('numbers have 53 bits, lie in [0, 1) and depend on the seed', () => {
    fc.assert(
      fc.property(fc.bigInt(-(2n ** 63n), 2n ** 64n - 1n), (seed) => {
        const [random, same, next] = [new Random(seed), new Random(seed), new Random(BigInt.asIntN(64, seed + 1n))];
        const numbers = Array.from({ length: 20 }, () => random.uniform());
        for (const u of numbers) expect(0 <= u && u < 1 && Number.isInteger(u * 2 ** 53)).toBe(true);
        expect(numbers.some((u) => !Number.isInteger(u * 2 ** 50))).toBe(true);
        expect(numbers.map(() => same.uniform())).toEqual(numbers);
        expect(numbers.map(() => next.uniform())).not.toEqual(numbers);
      }),
    );
  });

  test.each([2 ** 53, 0.5, Number.NaN, 2n ** 64n, -(2n ** 63n) - 1n])('seed %s is refused', (seed) => {
    expect(problemsOf(() => new Random(seed))).toEqual([`seed: ${seed}`]);
  });
});

describe('exp', () => {
  test('is within 1 ulp of the exact value', () => {
    for (const [x, exact] of golden<[number, number][]>('exp')) expect(ulps(exp(x), exact), `x = ${x}`).toBeLessThanOrEqual(1);
  });

  test('is within 2 ulp of Math.exp, which may itself be off by one', () => {
    const numbers = fc.double({ min: -708, max: 0, noNaN: true });
    fc.assert(
      fc.property(numbers, (x) => ulps(exp(x), Math.exp(x)) <= 2),
      { numRuns: 5000 },
    );
  });

  test('is exact at 0 and ends at 0 where f64 would lose bits', () => {
    expect([exp(0), exp(-708.0001), exp(-1e300), exp(-Infinity)]).toEqual([1, 0, 0, 0]);
    expect(exp(-708)).toBeGreaterThan(2.2250738585072014e-308);
  });
});

describe('sampling as the release', () => {
  test.each(golden<SamplerCase[]>('cases').map((row) => [row.case, row] as const))('%s', (_, row) => {
    const logits = Float32Array.from(row.logits, (logit) => logit ?? -Infinity);
    const sampler = (random: { uniform(): number }) => {
      const made = new Sampler(logits.length, row.options, random);
      for (const id of row.observed) made.observe(id);
      return made;
    };
    const found = sampler(unused).distribution(logits);
    expect(found.map(({ id }) => id)).toEqual(row.ids);
    // Exponents of up to 60 carry a rounding of 7e-15 on each side, which exp makes relative.
    found.forEach(({ probability }, rank) => {
      expect(Math.abs(probability / row.probabilities[rank]! - 1)).toBeLessThan(3e-14);
    });
    for (const [u, id] of row.draws) expect(sampler(always(u)).sample(logits), `u = ${u}`).toBe(id);
  });
});

describe('laws of sampling', () => {
  // Quarters make many ties; -Infinity makes tokens that cannot be drawn; id 0 stays finite so that one can.
  const logits = fc
    .array(
      fc.oneof(
        fc.integer({ min: -40, max: 40 }).map((n) => n / 4),
        fc.constant(-Infinity),
      ),
      { minLength: 1, maxLength: 60 },
    )
    .map((values) => Float64Array.from(values, (value, id) => (id === 0 ? Math.max(value, -10) : value)));
  const options = fc.record({
    temperature: fc.double({ min: 0.05, max: 3, noNaN: true }),
    top_k: fc.nat(70),
    top_p: fc.double({ min: 1e-6, max: 1, noNaN: true }),
    min_p: fc.oneof(fc.constant(0), fc.double({ min: 0, max: 1, noNaN: true })),
  });
  const u = fc.nat(2 ** 31 - 1).map((n) => n / 2 ** 31);

  /** The same choice from its definition: everything sorted, Math.exp, no shortcut. */
  function naive(values: Float64Array, { temperature = 1, top_k = 0, top_p = 1, min_p = 0 }: SamplingOptions): Candidate[] | undefined {
    const order = [...values.keys()].filter((id) => values[id]! > -Infinity).sort((a, b) => values[b]! - values[a]! || a - b);
    const last = values[order[Math.min(top_k || order.length, order.length) - 1]!]!;
    const kept = order.filter((id) => values[id]! >= last);
    const weights = kept.map((id) => Math.exp((values[id]! - values[kept[0]!]!) / temperature));
    const total = weights.reduce((sum, weight) => sum + weight);
    let mass = 0;
    let count = 0;
    while (count < kept.length && (top_p === 1 || mass < top_p * total) && weights[count]! >= min_p) {
      mass += weights[count]!;
      count += 1;
      if (top_p < 1 && Math.abs(mass - top_p * total) < 1e-9) return undefined; // rounding decides
    }
    if (weights.some((weight) => Math.abs(weight - min_p) < 1e-12 && weight !== 1)) return undefined;
    return kept.slice(0, count).map((id, rank) => ({ id, probability: weights[rank]! / mass }));
  }

  test('the filters keep what their definition keeps', () => {
    fc.assert(
      fc.property(logits, options, (values, chosen) => {
        const expected = naive(values, chosen);
        fc.pre(expected !== undefined);
        const found = new Sampler(values.length, chosen, unused).distribution(values);
        expect(found.map(({ id }) => id)).toEqual(expected.map(({ id }) => id));
        found.forEach(({ probability }, rank) => {
          expect(probability).toBeCloseTo(expected[rank]!.probability, 12);
        });
      }),
      { numRuns: 1000 },
    );
  });

  test('top_p keeps the smallest set whose mass reaches it', () => {
    fc.assert(
      fc.property(logits, options, (values, { temperature, top_p }) => {
        const all = new Sampler(values.length, { temperature }, unused).distribution(values);
        const { length } = new Sampler(values.length, { temperature, top_p }, unused).distribution(values);
        const massOf = (count: number) => all.slice(0, count).reduce((sum, { probability }) => sum + probability, 0);
        expect(massOf(length)).toBeGreaterThan(top_p - 1e-12);
        expect(massOf(length - 1)).toBeLessThan(top_p + 1e-12);
      }),
    );
  });

  test('a draw is the inverse of the cumulative distribution, whatever the source gives', () => {
    fc.assert(
      fc.property(logits, options, fc.oneof(u, fc.constantFrom(0, 1 - 2 ** -53, 2 ** -53)), (values, chosen, at) => {
        const candidates = new Sampler(values.length, chosen, unused).distribution(values);
        const rank = candidates.findIndex(({ id }) => id === new Sampler(values.length, chosen, always(at)).sample(values));
        const below = candidates.slice(0, rank).reduce((sum, { probability }) => sum + probability, 0);
        expect(rank).toBeGreaterThanOrEqual(0);
        expect(below).toBeLessThanOrEqual(at + 1e-12);
        expect(below + candidates[rank]!.probability).toBeGreaterThanOrEqual(at - 1e-12);
        expect(candidates[rank]!.probability).toBeGreaterThan(0);
      }),
      { numRuns: 500 },
    );
  });

  test('a number on the edge of two tokens draws the second', () => {
    const draw = (u: number) => new Sampler(4, {}, always(u)).sample(new Float32Array(4));
    expect([0, 0.25 - 2 ** -53, 0.25, 0.5, 0.75, 1 - 2 ** -53].map(draw)).toEqual([0, 0, 1, 2, 3, 3]);
  });

  test('temperature 0 takes the largest, the lowest id on ties, and draws nothing', () => {
    fc.assert(
      fc.property(logits, options, (values, chosen) => {
        const sampler = new Sampler(values.length, { ...chosen, temperature: 0 }, unused);
        expect(sampler.sample(values)).toBe(values.indexOf(values.reduce((a, b) => Math.max(a, b))));
      }),
    );
  });

  test('a sampler has no memory but its random numbers and what it observed', () => {
    fc.assert(
      fc.property(logits, options, u, (values, chosen, at) => {
        const before = values.slice();
        const used = new Sampler(values.length, chosen, always(at));
        used.sample(values.slice().reverse().fill(0, 0, 1));
        expect(used.sample(values)).toBe(new Sampler(values.length, chosen, always(at)).sample(values));
        expect(values).toEqual(before);
      }),
    );
  });

  test('a seed fixes the tokens, and one number is used for each', () => {
    const values = Float32Array.from({ length: 97 }, (_, id) => Math.sin(id * 12.9898) * 3);
    const tokens = (seed: number) => {
      const sampler = new Sampler(values.length, { top_p: 0.9 }, new Random(seed));
      return Array.from({ length: 50 }, () => sampler.sample(values));
    };
    expect(tokens(5)).toEqual(tokens(5));
    expect(tokens(5)).not.toEqual(tokens(6));
    const random = new Random(5);
    expect(tokens(5)).toEqual(Array.from({ length: 50 }, () => new Sampler(97, { top_p: 0.9 }, always(random.uniform())).sample(values)));
  });

  test('draws follow the distribution (chi-square, 7 degrees of freedom)', () => {
    const values = Float32Array.of(0.3, -1, 2, 0.9, -0.2, 1.4, -2.5, 0);
    const sampler = new Sampler(8, { temperature: 1.2 }, new Random(2024));
    const draws = 20_000;
    const counts = new Float64Array(8);
    for (let n = 0; n < draws; n++) counts[sampler.sample(values)]! += 1;
    const weights = Array.from(values, (value) => Math.exp(value / 1.2));
    const total = weights.reduce((sum, weight) => sum + weight);
    const chi_square = weights.reduce((sum, weight, id) => {
      const expected = (draws * weight) / total;
      return sum + (counts[id]! - expected) ** 2 / expected;
    }, 0);
    expect(chi_square).toBeLessThan(24.32); // exceeded once in 1000 seeds
  });

  test('the vocabulary of the 7B model', () => {
    const V = 100_352;
    const random = new Random(11);
    const values = Float32Array.from({ length: V }, () => 8 * random.uniform() ** 3);
    const order = [...values.keys()].sort((a, b) => values[b]! - values[a]! || a - b);
    const kept = new Sampler(V, { top_k: 50 }, unused).distribution(values).map(({ id }) => id);
    expect(kept).toEqual(order.slice(0, 50));
    const nucleus = new Sampler(V, { top_p: 0.3 }, unused).distribution(values).map(({ id }) => id);
    expect(nucleus.length).toBeGreaterThan(100);
    expect(nucleus).toEqual(order.slice(0, nucleus.length));
  });
});

describe('repetition_penalty', () => {
  test('divides positive and multiplies negative logits once for each token observed', () => {
    const sampler = new Sampler(4, { repetition_penalty: 2 }, unused);
    for (const id of [0, 1, 1, 0]) sampler.observe(id);
    const found = sampler.distribution(Float64Array.of(3, -1, 1.5, -2));
    const plain = new Sampler(4, {}, unused).distribution(Float64Array.of(1.5, -2, 1.5, -2));
    expect(found).toEqual(plain);
  });
});

describe('refusals', () => {
  test.each([0, 1])('NaN and infinities are named at temperature %s', (temperature) => {
    const problems = (...values: number[]) =>
      problemsOf(() => new Sampler(values.length, { temperature }, unused).sample(Float32Array.from(values)));
    expect(problems(1, Number.NaN, 2, Number.NaN)).toEqual(['logits: 2 NaN and 0 +Infinity of 4, first at id 1']);
    expect(problems(Number.NaN, 1)).toEqual(['logits: 1 NaN and 0 +Infinity of 2, first at id 0']);
    expect(problems(1, 2, Infinity, Number.NaN)).toEqual(['logits: 1 NaN and 1 +Infinity of 4, first at id 2']);
    expect(problems(0, Infinity)).toEqual(['logits: 0 NaN and 1 +Infinity of 2, first at id 1']);
    expect(problems(-Infinity, -Infinity)).toEqual(['logits: -Infinity for all 2 ids, from id 0 on']);
  });

  test('a sampler works on after a refusal', () => {
    const sampler = new Sampler(3, { top_k: 2 }, always(0));
    expect(problemsOf(() => sampler.sample(Float32Array.of(Number.NaN, 1, 2)))).toHaveLength(1);
    expect(sampler.sample(Float32Array.of(0, 1, 2))).toBe(2);
  });

  test('logits of another vocabulary', () => {
    const sampler = new Sampler(3, {}, unused);
    for (const length of [2, 4]) expect(problemsOf(() => sampler.sample(new Float32Array(length)))).toEqual([`logits: ${length}`]);
  });

  test('all options out of range are named at once', () => {
    const wrong = { temperature: -1, top_k: 1.5, top_p: 0, min_p: 1.1, repetition_penalty: 0 };
    const found = ['temperature: -1', 'top_k: 1.5', 'top_p: 0', 'min_p: 1.1', 'repetition_penalty: 0'];
    expect(problemsOf(() => new Sampler(3, wrong, unused))).toEqual(found);
  });

  test.each<SamplingOptions>([
    { temperature: Number.NaN },
    { temperature: Infinity },
    { top_k: -1 },
    { top_p: 1.0001 },
    { top_p: Number.NaN },
    { min_p: -0.1 },
    { repetition_penalty: Infinity },
    { repetition_penalty: '1' as unknown as number },
  ])('%o', (options) => {
    expect(problemsOf(() => new Sampler(3, options, unused))).toHaveLength(1);
  });

  test('extreme but legal options leave a distribution', () => {
    const values = Float32Array.of(3e38, -3e38, 0, 3e38);
    const halves = [
      { id: 0, probability: 0.5 },
      { id: 3, probability: 0.5 },
    ];
    for (const extreme of [{ temperature: 5e-324 }, { temperature: 1e30 }, { min_p: 1 }, { top_k: 1 }, { top_k: 2 ** 53 - 1 }]) {
      expect(new Sampler(4, extreme, unused).distribution(values)).toEqual(halves);
    }
    expect(new Sampler(4, { top_p: 5e-324 }, unused).distribution(values)).toEqual([{ id: 0, probability: 1 }]);
    expect(new Sampler(4, { temperature: 1e308 }, unused).distribution(values)).toHaveLength(4);
  });
});
