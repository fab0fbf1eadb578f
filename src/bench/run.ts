import { KV_FORMATS, type KVOption, type LoadedModel, type LoadOptions, type WeightsOption } from '../load.ts';
import { ArgumentError } from '../errors.ts';
import { kvWords } from '../runtime/kernels.ts';
import type { OlmoHybridForCausalLM, Snapshot } from '../model/olmo_hybrid.ts';
import type { Build } from '../runtime/wasm_module.ts';
import { matrixBytes } from '../runtime/tensor.ts';
import { elapsed_ms, type Limits, LimitsMeter, median, METER_BYTES } from './limits.ts';
import { Profile } from './profile.ts';

/** What `olmo-hybrid bench --json` prints. Rates are medians; GB and GFLOP are 1e9. */
export interface BenchResult {
  readonly shape: string;
  readonly weights: WeightsOption | 'stored';
  readonly kv: KVOption;
  readonly mode: 'strict' | 'fast';
  readonly build: Build | null;
  readonly threads: number;
  readonly rounds: number;
  readonly limits: Limits;
  /**
   * By tokens of the prompt; 2048 are left out where they would take more than two minutes, or exceed the model's positions. Products with weights alone
   * are counted, those of lm_head for one token.
   */
  readonly prefill: Readonly<Record<string, { tokens_per_second: number; gflops: number }>>;
  /** After a prompt of 512 tokens. */
  readonly decode: Decode;
  /** By the positions in the caches that decoding ends with; all but 512 are made up. */
  readonly contexts: Readonly<Record<string, Decode>>;
  /** A prompt of 512 tokens and the first token after it. */
  readonly time_to_first_token_seconds: number;
  readonly load_seconds: number;
  readonly planned_bytes: number;
  /** Of the whole process, the memory that the limits are measured on left out. */
  readonly peak_rss_bytes: number;
  /** Shares of the time, by kernel. */
  readonly kernels: { readonly prefill: Readonly<Record<string, number>>; readonly decode: Readonly<Record<string, number>> };
}

interface Decode {
  readonly tokens_per_second: number;
  readonly gbps: number;
  /** Bytes that one token has to read: weights, the states of the Gated DeltaNet layers, keys and values. */
  readonly bytes_per_token: number;
  /** Measured beside it, round by round: what another program on the machine takes, and where the threads run, changes it by half in a minute. */
  readonly memory_read_gbps: number;
}

interface Measured {
  readonly time_ms: number;
  readonly memory_read_gbps: number;
}

export interface BenchOptions {
  readonly shape: string;
  /** Positions that the model allows, its max_position_embeddings. */
  readonly positions: number;
  readonly weights: WeightsOption | undefined;
  readonly kv: KVOption | undefined;
  readonly mode: 'strict' | 'fast';
  readonly threads: number;
  /** Positions at which decoding is measured besides. */
  readonly contexts: readonly number[];
  /** Most measurements of each figure. */
  readonly rounds: number;
  readonly load: (options: LoadOptions) => Promise<LoadedModel>;
  /** Told what comes next. */
  readonly onStep: (step: string) => void;
}

const PROMPTS = [512, 2048] as const;
const PREFILL_CHUNK = 256;
const DECODED = 64;
/** A figure is measured again while it has taken less than this, and a longer prompt not at all if it would take twice this: large models end. */
const PATIENCE_MS = 60_000;
/** Tokens of the prompt that the profile is of, where 512 take long. */
const SHORT_PROMPT = 64;

/**
 * Measures a model, and this machine's limits in between.
 * @throws {ArgumentError} when the model has too few positions for the shortest prompt and what is decoded after it, or for a context
 */
export async function runBench(options: BenchOptions): Promise<BenchResult> {
  const { shape, positions, mode, threads, contexts, weights, kv, rounds, onStep } = options;
  const least = Math.max(PROMPTS[0] + DECODED, ...contexts);
  if (least > positions) {
    const fix = contexts.length === 0 ? 'Measure another model, or a --shape.' : 'Give positions of --context that the model has.';
    throw new ArgumentError({ where: 'bench', expected: `a model of at least ${least} positions`, found: `${positions}`, fix });
  }
  const prompts = PROMPTS.filter((T) => T <= positions);
  const profile = new Profile();
  const context = Math.max(least, ...prompts);
  const begin = performance.now();
  onStep('loading');
  const loaded = await options.load({ weights, kv, mode, threads, context, prefill_chunk: PREFILL_CHUNK, instrument: profile.add });
  const load_seconds = (performance.now() - begin) / 1000;
  const { model, plan } = loaded;
  const loaded_rss_bytes = maxRssBytes();
  const meter = await LimitsMeter.start(threads, plan.build ?? 'strict');
  const measure = measurer(meter, rounds, onStep);
  try {
    const { prefill, first_ms, after512 } = measurePrefill(loaded, prompts, measure);
    const at512 = () => model.restore(after512);
    const decode = measureDecode(loaded, 512, at512, measure);
    const long: Record<string, Decode> = {};
    for (const position of contexts) {
      const fill = () => {
        at512();
        model.stretch(position - DECODED);
      };
      long[position] = measureDecode(loaded, position - DECODED, fill, measure);
    }
    onStep('profile');
    const kernels = sharesOf(profile, model, first_ms > PATIENCE_MS / 4 ? SHORT_PROMPT : PROMPTS[0]);
    return {
      shape,
      weights: weights ?? 'stored',
      kv: plan.kv,
      mode,
      build: plan.build,
      threads,
      rounds,
      limits: meter.limits,
      prefill,
      decode,
      contexts: long,
      time_to_first_token_seconds: first_ms / 1000,
      load_seconds,
      planned_bytes: plan.placement.total_bytes,
      // Caches come to memory when they are written. The limits are measured on memory that is there from then on.
      peak_rss_bytes: Math.max(loaded_rss_bytes, maxRssBytes() - METER_BYTES),
      kernels,
    };
  } finally {
    await meter.end();
    await loaded.dispose();
  }
}

/** Takes the median time of `run`, which returns milliseconds, and measures the limits before each. */
type Measure = (step: string, run: () => number) => Measured;

function measurer(meter: LimitsMeter, rounds: number, onStep: BenchOptions['onStep']): Measure {
  return (step, run) => {
    onStep(step);
    const times: number[] = [];
    const reads: number[] = [];
    for (let spent = 0; times.length < rounds && (times.length === 0 || spent + spent / times.length < PATIENCE_MS); ) {
      reads.push(meter.measure().memory_read_gbps);
      times.push(run());
      spent += times.at(-1)!;
    }
    return { time_ms: median(times), memory_read_gbps: median(reads) };
  };
}

/** Prompts from empty caches, the shortest first; it leaves a snapshot without keys and values, for longer prompts begin with the same tokens. */
function measurePrefill(loaded: LoadedModel, prompts: readonly number[], measure: Measure) {
  const { model } = loaded;
  const products = productsPerToken(loaded);
  const prefill: Record<string, { tokens_per_second: number; gflops: number }> = {};
  const [shortest] = PROMPTS;
  let first_ms = 0;
  let after512: Snapshot | undefined;
  for (const T of prompts) {
    if ((first_ms * T) / shortest > 2 * PATIENCE_MS) continue;
    const tokens = prompt(model, T);
    const { time_ms } = measure(`prefill of ${T} tokens`, () => {
      model.reset();
      return elapsed_ms(() => feed(model, tokens));
    });
    if (T === shortest) {
      first_ms = time_ms;
      after512 = model.snapshot({ kv: false });
    }
    const flops = 2 * (T * products.layers + products.head);
    prefill[T] = { tokens_per_second: (1000 * T) / time_ms, gflops: flops / (1e6 * time_ms) };
  }
  return { prefill, first_ms, after512: after512! };
}

/** @param fill brings the caches to `position` */
function measureDecode(loaded: LoadedModel, position: number, fill: () => void, measure: Measure): Decode {
  const { time_ms, memory_read_gbps } = measure(`decoding after ${position} tokens`, () => {
    fill();
    return elapsed_ms(() => {
      for (let i = 0; i < DECODED; i++) loaded.model.forward([i]);
    });
  });
  const bytes_per_token = bytesPerToken(loaded, position + DECODED / 2);
  const tokens_per_second = (1000 * DECODED) / time_ms;
  return { tokens_per_second, gbps: (tokens_per_second * bytes_per_token) / 1e9, bytes_per_token, memory_read_gbps };
}

function sharesOf(profile: Profile, model: OlmoHybridForCausalLM, T: number): BenchResult['kernels'] {
  model.reset();
  const prefill = profile.of(() => feed(model, prompt(model, T)));
  const decode = profile.of(() => {
    for (const id of prompt(model, DECODED)) model.forward([id]);
  });
  return { prefill, decode };
}

/** Most memory that this process has had so far. */
function maxRssBytes(): number {
  return process.resourceUsage().maxRSS * 1024;
}

function prompt(model: OlmoHybridForCausalLM, T: number): number[] {
  return Array.from({ length: T }, (_, i) => (i * 7919) % model.config.vocab_size);
}

function feed(model: OlmoHybridForCausalLM, tokens: readonly number[]): void {
  for (let t = 0; t < tokens.length; t += model.prefill_chunk) model.forward(tokens.slice(t, t + model.prefill_chunk));
}

/** Products of weights with the activations of one token. */
function productsPerToken({ plan }: LoadedModel): { layers: number; head: number } {
  const sum = { layers: 0, head: 0 };
  for (const parameter of plan.placement.parameters) {
    if (parameter.kind !== 'matrix' || parameter.weight.layout !== 'panels') continue;
    sum[parameter.name.startsWith('lm_head') ? 'head' : 'layers'] += parameter.weight.N * parameter.weight.K;
  }
  return sum;
}

function bytesPerToken({ plan }: LoadedModel, positions: number): number {
  const { config, placement } = plan;
  let bytes = 0;
  for (const parameter of placement.parameters) {
    if (parameter.kind === 'matrix' && parameter.weight.layout === 'panels') {
      bytes += matrixBytes(parameter.weight.format, parameter.weight.N, parameter.weight.K);
    }
  }
  const { linear_num_value_heads: H, linear_key_head_dim: Dk, linear_value_head_dim: Dv, num_key_value_heads: Hkv, head_dim: Dh } = config;
  const row_bytes = 4 * kvWords(KV_FORMATS[plan.kv], Dh);
  for (const type of config.layer_types) {
    if (type === 'linear_attention') bytes += H * Dk * Dv * 4;
    else bytes += 2 * Hkv * row_bytes * (type === 'sliding_attention' ? Math.min(positions, config.sliding_window!) : positions);
  }
  return bytes;
}
