import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { type OlmoHybridConfig, parseConfig } from '../src/config.ts';
import { RuntimeLimitError } from '../src/errors.ts';
import { decoderLayer, OlmoHybridForCausalLM, RotaryTables } from '../src/model/olmo_hybrid.ts';
import { type Placement, type PlacementOptions, placement } from '../src/model/placement.ts';
import { type Formats, Weights } from '../src/model/weights.ts';
import { type BankBytes, threadScratch } from '../src/runtime/addressed_bank.ts';
import { PlanBank } from '../src/runtime/plan_bank.ts';
import { BANK_LIMIT_BYTES, WasmBank } from '../src/runtime/wasm_bank.ts';
import { ThreadPool } from '../src/runtime/thread_pool.ts';

const MIB = 2 ** 20;
const pool = await ThreadPool.create(1);

/** A real bank that tells where its arenas end. */
class MeasuredBank extends WasmBank {
  get taken(): BankBytes {
    const { persistentArena, scratchArena } = this;
    return { persistent: persistentArena.end - persistentArena.begin, scratch: scratchArena.peak - scratchArena.begin };
  }

  get gap(): number {
    return this.scratchArena.begin - this.persistentArena.end;
  }
}

interface Case {
  readonly config: OlmoHybridConfig;
  readonly formats: Formats;
  readonly options: Omit<PlacementOptions, 'bank_limit_bytes'>;
}

const size = fc.integer({ min: 1, max: 40 });
const cases: fc.Arbitrary<Case> = fc
  .record({
    olmo3: fc.boolean(),
    vocab_size: fc.integer({ min: 2, max: 2000 }),
    hidden_size: size,
    intermediate_size: fc.integer({ min: 1, max: 4000 }),
    full: fc.array(fc.boolean(), { minLength: 1, maxLength: 9 }),
    Hkv: fc.integer({ min: 1, max: 3 }),
    repeat: fc.integer({ min: 1, max: 3 }),
    half: fc.integer({ min: 1, max: 9 }),
    Hk: fc.integer({ min: 1, max: 3 }),
    Dk: size,
    Dv: size,
    W: fc.integer({ min: 1, max: 5 }),
    theta: fc.constantFrom(null, 1e4),
    attention_bias: fc.boolean(),
    bf16: fc.boolean(),
    rows: fc.integer({ min: 1, max: 70 }),
    context: fc.integer({ min: 70, max: 2000 }),
    mode: fc.constantFrom('strict', 'fast'),
    quantised: fc.constantFrom(null, 'Q8', 'Q4'),
  })
  .map(({ olmo3, full, Hkv, repeat, half, Hk, Dk, Dv, W, theta, bf16, rows, context, mode, quantised, ...sizes }) => {
    const other = olmo3 ? 'sliding_attention' : 'linear_attention';
    const json = {
      ...sizes,
      model_type: olmo3 ? 'olmo3' : 'olmo_hybrid',
      num_hidden_layers: full.length,
      layer_types: full.map((is) => (is ? 'full_attention' : other)),
      num_attention_heads: Hkv * repeat,
      num_key_value_heads: Hkv,
      head_dim: 2 * half,
      rope_parameters: olmo3 ? null : { rope_theta: theta },
      linear_num_key_heads: Hk,
      linear_num_value_heads: Hk * repeat,
      linear_key_head_dim: Dk,
      linear_value_head_dim: Dv,
      linear_conv_kernel_dim: W,
    };
    // Formats differ from matrix to matrix, as in a checkpoint of mixed dtypes.
    const formats: Formats = (name) => (quantised && name.includes('proj') ? quantised : bf16 === name.includes('proj') ? 'BF16' : 'F32');
    return { config: parseConfig(JSON.stringify(json)), formats, options: { rows, context, mode, threads: 1 } };
  });

const place = ({ config, formats, options }: Case, bank_limit_bytes: number) =>
  placement(config, formats, { ...options, bank_limit_bytes });

/** Placed, or null where a part exceeds a bank. */
function placeIfItFits(model: Case, limit: number): Placement | null {
  try {
    return place(model, limit);
  } catch (error) {
    expect(error).toBeInstanceOf(RuntimeLimitError);
    return null;
  }
}

const limits = fc.integer({ min: 5 * MIB, max: 8 * MIB });

test('is a pure function', () => {
  fc.assert(
    fc.property(cases, limits, (model, limit) => {
      const frozen = { ...model, config: deepFrozen(model.config), options: Object.freeze(model.options) };
      const [a, b] = [placeIfItFits(frozen, limit), placeIfItFits(frozen, limit)];
      const shown = (p: Placement | null) =>
        p && { ...p, parameters: p.parameters.map(({ name, shape, kind }) => ({ name, shape, kind })) };
      expect(shown(a)).toEqual(shown(b));
    }),
    { numRuns: 40 },
  );
});

test('layers lie in order, in banks within the limit', () => {
  fc.assert(
    fc.property(cases, limits, (model, first) => {
      // Then a limit one byte under the largest bank, again and again: where an estimate that is too low shows.
      let limit = first;
      for (let step = 0; step < 8; step++) {
        const plan = placeIfItFits(model, limit);
        if (!plan) break;
        const { banks, layers, total_bytes } = plan;
        expect(layers).toHaveLength(model.config.num_hidden_layers + 1);
        expect(layers.every((bank, i) => [0, 1].includes(bank - (layers[i - 1] ?? 0)))).toBe(true);
        expect(banks).toHaveLength(layers.at(-1)! + 1);
        const bytes = banks.map(({ persistent, scratch }) => threadScratch(1) + persistent + scratch);
        const largest = Math.max(...bytes);
        expect(largest).toBeLessThanOrEqual(limit);
        expect(total_bytes).toBe(bytes.reduce((sum, more) => sum + more));
        limit = largest - 1;
      }
    }),
    { numRuns: 80 },
  );
});

test('one bank where all fits', () => {
  fc.assert(
    fc.property(cases, (model) => {
      const plan = place(model, BANK_LIMIT_BYTES);
      expect(plan.layers.every((bank) => bank === 0)).toBe(true);
      expect(plan.banks).toHaveLength(1);
    }),
    { numRuns: 30 },
  );
});

test('a bank is left only when the next part does not fit', () => {
  fc.assert(
    fc.property(cases, limits, (model, limit) => {
      const { config, formats, options } = model;
      const plan = placeIfItFits(model, limit);
      fc.pre(plan !== null && plan.banks.length > 1);
      const { num_hidden_layers, hidden_size } = config;
      plan.layers.forEach((bank, i) => {
        if (i === num_hidden_layers || bank === (plan.layers[i - 1] ?? 0)) return;
        const left = plan.banks[bank - 1]!;
        const next = new PlanBank(options);
        decoderLayer(config, new Weights(formats), next, new RotaryTables(config, options.context), options, i);
        // Every layer is counted with rotary tables of its own and a new bank with up to 64 bytes for alignment: an estimate from above.
        const tables =
          num_hidden_layers * 2 * (options.context * (config.head_dim / 2) * 4 + 64) + num_hidden_layers * (config.head_dim * 4 + 64);
        const slack = tables + 64 + options.rows * hidden_size * 4;
        const together = threadScratch(1) + left.persistent + next.bytes.persistent + Math.max(left.scratch, next.bytes.scratch);
        expect(together + slack).toBeGreaterThan(limit);
      });
    }),
    { numRuns: 60 },
  );
});

test('a larger limit never takes more banks', () => {
  fc.assert(
    fc.property(cases, limits, limits, (model, a, b) => {
      const [small, large] = [placeIfItFits(model, Math.min(a, b)), placeIfItFits(model, Math.max(a, b))];
      if (small) expect(large!.banks.length).toBeLessThanOrEqual(small.banks.length);
    }),
    { numRuns: 40 },
  );
});

test('the plan counts what the constructors take from real memories, to the byte', () => {
  fc.assert(
    fc.property(cases, limits, (model, limit) => {
      const plan = placeIfItFits(model, limit);
      fc.pre(plan !== null);
      const { config, formats, options } = model;
      const banks = plan.banks.map((bytes) => new MeasuredBank(pool, options.rows, options.mode, bytes));
      const weights = new Weights(formats);
      const built = new OlmoHybridForCausalLM(config, weights, banks, plan.layers, options);
      banks.forEach((bank, i) => {
        expect(bank.taken.persistent).toBe(plan.banks[i]!.persistent);
        expect(bank.gap).toBe(0);
        expect(bank.taken.scratch).toBeLessThanOrEqual(plan.banks[i]!.scratch);
        expect(bank.staging.length).toBe(plan.banks[i]!.scratch);
        // What is not scratch is room for four times 16 rows of the widest weight, or a mebibyte.
        const widest = Math.max(
          ...weights.parameters.filter((p) => p.bank === bank && p.kind === 'matrix').map((p) => p.shape[1]! * 256),
          4 * MIB,
        );
        expect(plan.banks[i]!.scratch).toBe(Math.max(bank.taken.scratch, widest));
      });
      const shapes = (all: Placement['parameters']) => all.map(({ name, shape }) => `${name} [${shape.join(', ')}]`);
      expect(shapes(weights.parameters)).toEqual(shapes(plan.parameters));
      built.ready();
      const logits = built.forward([1 % config.vocab_size]);
      expect(logits).toHaveLength(config.vocab_size);
      expect(logits.every((value) => value === 0)).toBe(true); // all weights are 0, and no address holds anything else
    }),
    { numRuns: 25 },
  );
});

describe('a part that exceeds a bank is named', () => {
  const tiny = {
    model_type: 'olmo_hybrid',
    vocab_size: 11,
    hidden_size: 6,
    intermediate_size: 10,
    num_hidden_layers: 3,
    layer_types: ['linear_attention', 'full_attention', 'linear_attention'],
    num_attention_heads: 2,
    head_dim: 4,
    rope_parameters: null,
    linear_num_key_heads: 1,
    linear_num_value_heads: 1,
    linear_key_head_dim: 5,
    linear_value_head_dim: 7,
  };
  const options = { rows: 8, threads: 1, context: 16, mode: 'strict', bank_limit_bytes: 5 * MIB } as const;
  const refused = (change: object, formats: Formats, given: Partial<PlacementOptions> = {}): RuntimeLimitError => {
    try {
      placement(parseConfig(JSON.stringify({ ...tiny, ...change })), formats, { ...options, ...given });
    } catch (error) {
      expect(error).toBeInstanceOf(RuntimeLimitError);
      return error as RuntimeLimitError;
    }
    throw new Error('it was placed');
  };

  test.each([
    { where: 'model.embed_tokens', change: { vocab_size: 50_000 }, wide: 'model.embed_tokens.weight' },
    { where: 'lm_head', change: { vocab_size: 50_000 }, wide: 'lm_head.weight' },
    { where: 'model.layers.0', change: { linear_value_head_dim: 60_000 }, wide: '' },
    { where: 'model.layers.0', change: { intermediate_size: 40_000 }, wide: '' },
  ])('$where', ({ where, change, wide }) => {
    const error = refused(change, (name) => (name === wide ? 'F32' : 'BF16'));
    expect(error.problems).toHaveLength(1);
    expect(error.problems[0]!.where).toBe(where);
    expect(error.problems[0]!.expected).toContain('5 MiB');
    expect(error.problems[0]!.found).toMatch(/^\d+ MiB$/);
  });

  test('a context too long names the first layer with a cache', () => {
    const error = refused({}, () => 'F32', { context: 60_000 });
    expect(error.problems[0]!.where).toBe('model.layers.1');
    expect(error.problems[0]!.fix).toContain('context');
  });

  test('a limit one byte under what one part needs is too small', () => {
    const config = parseConfig(JSON.stringify({ ...tiny, vocab_size: 30_000 }));
    const least = placement(config, () => 'F32', { ...options, bank_limit_bytes: BANK_LIMIT_BYTES });
    const fits = least.total_bytes;
    expect(placement(config, () => 'F32', { ...options, bank_limit_bytes: fits + 1000 }).banks).toHaveLength(1);
    expect(placement(config, () => 'F32', { ...options, bank_limit_bytes: fits - 1 }).banks.length).toBeGreaterThan(1);
  });
});

function deepFrozen<A>(value: A): A {
  if (typeof value === 'object' && value !== null) Object.values(Object.freeze(value)).forEach(deepFrozen);
  return value;
}
