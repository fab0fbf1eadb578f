import type { OlmoHybridConfig } from '../config.ts';
import { RuntimeLimitError } from '../errors.ts';
import { type BankBytes, type BankUse, threadScratch } from '../runtime/addressed_bank.ts';
import { PlanBank } from '../runtime/plan_bank.ts';
import { decoderLayer, type ModelOptions, OlmoHybridForCausalLM, RotaryTables } from './olmo_hybrid.ts';
import { type Formats, type Parameter, Weights } from './weights.ts';

export interface PlacementOptions extends ModelOptions, BankUse {
  /** Most bytes of one bank. */
  readonly bank_limit_bytes: number;
}

/** Where every layer will lie, before a byte is allocated. */
export interface Placement {
  readonly banks: readonly BankBytes[];
  /** Bank of each layer, and of norm and lm_head behind the last. */
  readonly layers: readonly number[];
  /** Every parameter of the model, in order. */
  readonly parameters: readonly Parameter[];
  /** Of all banks. */
  readonly total_bytes: number;
}

/**
 * Puts consecutive layers into as few banks as hold them, by building the model on banks without memory: what it counts is what the real
 * constructors will take. A pure function of its arguments.
 * @param formats In which format each matrix will lie in memory.
 * @throws {RuntimeLimitError} when one layer alone exceeds a bank.
 */
export function placement(config: OlmoHybridConfig, formats: Formats, options: PlacementOptions): Placement {
  const { rows, bank_limit_bytes } = options;
  const residual = { persistent: rows * config.hidden_size * 4 + 64, scratch: 0 };
  const layerless = { ...config, num_hidden_layers: 0, layer_types: [] };
  const costs = config.layer_types.map((_, i) => costOfLayer(i));
  const layers: number[] = [];
  let bank = 0;
  let used = checked('model.embed_tokens', costOf(layerless, 0));
  [...costs, costOf(layerless, 1)].forEach((cost, i) => {
    const name = i < costs.length ? `model.layers.${i}` : 'lm_head';
    if (size(add(used, cost)) > bank_limit_bytes) {
      bank++;
      used = residual;
    }
    used = checked(name, add(used, cost));
    layers.push(bank);
  });

  const plans = Array.from({ length: bank + 1 }, () => new PlanBank(options));
  const weights = new Weights(formats);
  new OlmoHybridForCausalLM(config, weights, plans, layers, options);
  const banks = plans.map((plan) => plan.bytes);
  return { banks, layers, parameters: weights.parameters, total_bytes: banks.reduce((sum, b) => sum + size(b), 0) };

  function costOfLayer(i: number): BankBytes {
    const plan = new PlanBank(options);
    decoderLayer(config, new Weights(formats), plan, new RotaryTables(config, options.context), options, i);
    return plan.bytes;
  }

  /** Bank 0 of a model without layers holds embed_tokens, bank 1 norm and lm_head. */
  function costOf(layerless: OlmoHybridConfig, part: 0 | 1): BankBytes {
    const plans = [new PlanBank(options), new PlanBank(options)] as const;
    new OlmoHybridForCausalLM(layerless, new Weights(formats), plans, [1], options);
    return plans[part].bytes;
  }

  /** With what every bank has before its buffers. */
  function size({ persistent, scratch }: BankBytes): number {
    return threadScratch(options.threads) + persistent + scratch;
  }

  function checked(where: string, bytes: BankBytes): BankBytes {
    if (size(bytes) <= bank_limit_bytes) return bytes;
    throw new RuntimeLimitError({
      where,
      expected: `at most ${mebibytes(bank_limit_bytes)} in one memory`,
      found: mebibytes(size(bytes)),
      fix: 'Ask for a shorter context or a smaller prefill chunk.',
    });
  }
}

function add(a: BankBytes, b: BankBytes): BankBytes {
  return { persistent: a.persistent + b.persistent, scratch: Math.max(a.scratch, b.scratch) };
}

function mebibytes(bytes: number): string {
  return `${Math.ceil(bytes / 2 ** 20)} MiB`;
}
