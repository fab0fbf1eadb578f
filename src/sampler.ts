import { ArgumentError, type Problem } from './errors.ts';
import { exp } from './exact_math.ts';

/** How the next token is chosen. The defaults draw from the model's own distribution. */
export interface SamplingOptions {
  /** Divides the logits; at least 0, and 0 takes the likeliest token without drawing. Default 1. */
  readonly temperature?: number | undefined;
  /** Keeps this many of the likeliest tokens, and all that tie with the last of them; 0 keeps all. Default 0. */
  readonly top_k?: number | undefined;
  /** Keeps the smallest set of likeliest tokens whose probabilities reach this sum; in (0, 1]. Default 1. */
  readonly top_p?: number | undefined;
  /** Keeps the tokens at least this times as likely as the likeliest; in [0, 1]. Default 0. */
  readonly min_p?: number | undefined;
  /** Divides positive and multiplies negative logits of tokens seen before; above 0. Default 1. */
  readonly repetition_penalty?: number | undefined;
}

/** A token that may be drawn, and how likely. */
export interface Candidate {
  readonly id: number;
  readonly probability: number;
}

/**
 * What is wrong with sampling options.
 * @param options as a caller gave them
 * @returns every problem found
 */
export function samplingProblems({ temperature = 1, top_k = 0, top_p = 1, min_p = 0, repetition_penalty = 1 }: SamplingOptions): Problem[] {
  const problems: Problem[] = [];
  const check = (where: string, value: unknown, usable: boolean, expected: string, fix: string) => {
    if (!usable) problems.push({ where, expected, found: typeof value === 'string' ? JSON.stringify(value) : String(value), fix });
  };
  const finite = Number.isFinite;
  check('temperature', temperature, finite(temperature) && temperature >= 0, 'a number of at least 0', 'Use 0 for the likeliest token.');
  check('top_k', top_k, Number.isSafeInteger(top_k) && top_k >= 0, 'an integer of at least 0', 'Use 0 to keep all tokens.');
  check('top_p', top_p, finite(top_p) && top_p > 0 && top_p <= 1, 'a number in (0, 1]', 'Use 1 to keep all tokens.');
  check('min_p', min_p, finite(min_p) && min_p >= 0 && min_p <= 1, 'a number in [0, 1]', 'Use 0 to keep all tokens.');
  const penalty = repetition_penalty;
  check('repetition_penalty', penalty, finite(penalty) && penalty > 0, 'a number above 0', 'Use 1 for no penalty, 1.1 for a mild one.');
  return problems;
}

/**
 * Chooses one token id from the logits, in the order of HF: GenerationMixin._get_logits_processor and the classes it lists:
 *
 * 1. repetition_penalty on the ids observed (RepetitionPenaltyLogitsProcessor), then what is suppressed (SuppressTokensLogitsProcessor);
 * 2. temperature 0: the largest, the lowest id on ties, and nothing is drawn;
 * 3. temperature (TemperatureLogitsWarper), 4. top_k (TopKLogitsWarper), 5. softmax;
 * 6. top_p (TopPLogitsWarper), 7. min_p (MinPLogitsWarper);
 * 8. the inverse of the cumulative distribution at one uniform number, by descending probability and, on ties, ascending id.
 *
 * All in f64 with a fixed order of sums and nothing from the host but + - * /, so the same logits, options and seed give the same id on every engine.
 * top_k and min_p keep all of several equal tokens, as HF does; top_p keeps the lower ids of them, where HF leaves it to an unstable sort.
 */
export class Sampler {
  readonly #temperature: number;
  readonly #top_k: number;
  readonly #top_p: number;
  readonly #min_p: number;
  readonly #repetition_penalty: number;
  readonly #random: { uniform(): number };
  readonly #observed: Uint8Array; // [V]  1 for the ids in observed_ids
  readonly #observed_ids: number[] = [];
  readonly #largest: Float64Array; // [top_k]  the largest scores as a min-heap
  // The logits after the penalty; from softmax on, the weights of the candidates: probabilities before division by their sum.
  readonly #scores: Float64Array; // [V]
  // The candidates: a max-heap of those not yet ranked, then the ranked ones, so that rank r stands at candidates - 1 - r.
  readonly #ids: Int32Array; // [V]
  #candidates = 0;
  #ranked = 0;

  /**
   * @param vocab_size V, the length of the logits
   * @param random gives a number in [0, 1), once for each token drawn
   * @throws {ArgumentError} with every option out of range
   */
  constructor(vocab_size: number, options: SamplingOptions, random: { uniform(): number }) {
    const problems = samplingProblems(options);
    if (problems.length > 0) throw new ArgumentError(problems);
    this.#temperature = options.temperature ?? 1;
    this.#top_k = Math.min(options.top_k ?? 0, vocab_size);
    this.#top_p = options.top_p ?? 1;
    this.#min_p = options.min_p ?? 0;
    this.#repetition_penalty = options.repetition_penalty ?? 1;
    this.#random = random;
    this.#observed = new Uint8Array(vocab_size);
    this.#largest = new Float64Array(this.#top_k);
    this.#scores = new Float64Array(vocab_size);
    this.#ids = new Int32Array(vocab_size);
  }

  /** Adds a token of the prompt or of the text generated so far to those that repetition_penalty is for; id in [0, V). */
  observe(id: number): void {
    if (this.#observed[id] === 1) return;
    this.#observed[id] = 1;
    this.#observed_ids.push(id);
  }

  /**
   * Chooses the next token.
   * @param logits [V] f32 or f64, left as they are
   * @param suppressed ids that are not chosen; those beyond V count for nothing
   * @returns its id
   * @throws {ArgumentError} when a logit is NaN or +Infinity, when all are -Infinity, or when there are not V of them
   */
  sample(logits: Float32Array | Float64Array, suppressed: readonly number[] = []): number {
    const best = this.#penalize(logits, suppressed);
    if (this.#temperature === 0) return best;
    const { count, mass } = this.#filter(best);
    const target = this.#random.uniform() * mass;
    let cumulative = 0;
    for (let rank = 0; rank < count - 1; rank++) {
      const id = this.#idOfRank(rank);
      cumulative += this.#scores[id]!;
      if (target < cumulative) return id;
    }
    return this.#idOfRank(count - 1);
  }

  /**
   * What `sample` would draw from; draws nothing.
   * @param logits [V] f32 or f64, left as they are
   * @returns the tokens that may be drawn, in the order of the draw; their probabilities sum to 1
   * @throws {ArgumentError} as `sample` does
   */
  distribution(logits: Float32Array | Float64Array): Candidate[] {
    const best = this.#penalize(logits, []);
    if (this.#temperature === 0) return [{ id: best, probability: 1 }];
    const { count, mass } = this.#filter(best);
    return Array.from({ length: count }, (_, rank) => {
      const id = this.#idOfRank(rank);
      return { id, probability: this.#scores[id]! / mass };
    });
  }

  /** Sets the scores to the penalized logits; returns the id of the largest. */
  #penalize(logits: Float32Array | Float64Array, suppressed: readonly number[]): number {
    const scores = this.#scores;
    if (logits.length !== scores.length) {
      const [expected, found] = [`${scores.length} numbers`, `${logits.length}`];
      throw new ArgumentError({ where: 'logits', expected, found, fix: 'Make the sampler with the vocab_size of the model.' });
    }
    scores.set(logits);
    const penalty = this.#repetition_penalty;
    if (penalty !== 1) {
      for (const id of this.#observed_ids) scores[id] = scores[id]! < 0 ? scores[id]! * penalty : scores[id]! / penalty;
    }
    for (const id of suppressed) scores[id] = -Infinity;
    let best = 0;
    let usable = true;
    for (let id = 0; id < scores.length; id++) {
      if (scores[id]! > scores[best]!) best = id;
      usable &&= scores[id]! < Infinity;
    }
    if (!usable || scores[best] === -Infinity) throw new ArgumentError(unusableLogits(scores));
    return best;
  }

  /**
   * Temperature, top_k, softmax, top_p and min_p. Each of them keeps a beginning of the descending order.
   * @returns how many candidates are left, and the sum of their weights
   */
  #filter(best: number): { count: number; mass: number } {
    const [weights, ids, top_p] = [this.#scores, this.#ids, this.#top_p];
    const total = this.#softmax(best);
    // The likeliest weighs 1. All that weigh less than the second number are together less than 1 - top_p of the total, so outside of top_p:
    // dropping them before the order is made leaves a heap of hundreds rather than V. The third drops what underflowed to 0.
    const least = Math.max(this.#min_p, ((1 - top_p) * total) / weights.length, Number.MIN_VALUE);
    let count = 0;
    let mass = 0;
    for (let id = 0; id < weights.length; id++) {
      if (weights[id]! < least) continue;
      ids[count] = id;
      count += 1;
      mass += weights[id]!;
    }
    this.#candidates = count;
    this.#ranked = 0;
    for (let place = (count >> 1) - 1; place >= 0; place--) this.#sink(place);
    if (top_p === 1) return { count, mass };
    [count, mass] = [0, 0];
    while (count < this.#candidates && mass < top_p * total) {
      mass += weights[this.#idOfRank(count)]!;
      count += 1;
    }
    return { count, mass };
  }

  /** Turns the scores into weights, 0 for those that top_k drops; returns their sum. */
  #softmax(best: number): number {
    const [scores, temperature] = [this.#scores, this.#temperature];
    const largest = scores[best]!;
    const smallest = this.#smallestKept();
    let total = 0;
    for (let id = 0; id < scores.length; id++) {
      // The difference first: a small temperature can then make -Infinity, but never Infinity - Infinity.
      const weight = scores[id]! < smallest ? 0 : exp((scores[id]! - largest) / temperature);
      scores[id] = weight;
      total += weight;
    }
    return total;
  }

  /** The score of rank top_k, which is the root of a min-heap of the top_k largest; -Infinity without top_k. */
  #smallestKept(): number {
    const [scores, heap] = [this.#scores, this.#largest];
    if (heap.length === 0) return -Infinity;
    heap.set(scores.subarray(0, heap.length));
    heap.sort(); // an ascending array is a min-heap
    for (let id = heap.length; id < scores.length; id++) {
      if (scores[id]! > heap[0]!) replaceRoot(heap, scores[id]!);
    }
    return heap[0]!;
  }

  /** The candidate of a rank, 0 for the likeliest; moves the heap's root behind the heap until the rank is reached. */
  #idOfRank(rank: number): number {
    const ids = this.#ids;
    while (this.#ranked <= rank) {
      const last = this.#candidates - 1 - this.#ranked;
      const root = ids[0]!;
      ids[0] = ids[last]!;
      ids[last] = root;
      this.#ranked += 1;
      this.#sink(0);
    }
    return ids[this.#candidates - 1 - rank]!;
  }

  /** Lets the id at a place of the max-heap sink to where no child comes before it. */
  #sink(place: number): void {
    const [weights, ids] = [this.#scores, this.#ids];
    const size = this.#candidates - this.#ranked;
    const id = ids[place]!;
    for (let child = 2 * place + 1; child < size; child = 2 * place + 1) {
      if (child + 1 < size && isBefore(weights, ids[child + 1]!, ids[child]!)) child += 1;
      if (!isBefore(weights, ids[child]!, id)) break;
      ids[place] = ids[child]!;
      place = child;
    }
    ids[place] = id;
  }
}

/** The order of the draw: descending weight, then ascending id. */
function isBefore(weights: Float64Array, a: number, b: number): boolean {
  return weights[a]! > weights[b]! || (weights[a]! === weights[b]! && a < b);
}

/** Replaces the smallest value of a min-heap. */
function replaceRoot(heap: Float64Array, value: number): void {
  let place = 0;
  for (let child = 1; child < heap.length; child = 2 * place + 1) {
    if (child + 1 < heap.length && heap[child + 1]! < heap[child]!) child += 1;
    if (heap[child]! >= value) break;
    heap[place] = heap[child]!;
    place = child;
  }
  heap[place] = value;
}

/** Names how many scores leave no distribution to draw from, of which kind, and where the first one is. */
function unusableLogits(scores: Float64Array): Problem {
  const where = 'logits';
  const expected = 'finite numbers or -Infinity, at least one finite';
  const fix = 'The weights are damaged or a value overflowed on the way: run `olmo-hybrid verify` on the model.';
  const nan = scores.filter(Number.isNaN).length;
  const infinite = scores.filter((score) => score === Infinity).length;
  if (nan + infinite === 0) return { where, expected, found: `-Infinity for all ${scores.length} ids, from id 0 on`, fix };
  const first = scores.findIndex((score) => !(score < Infinity));
  return { where, expected, found: `${nan} NaN and ${infinite} +Infinity of ${scores.length}, first at id ${first}`, fix };
}
