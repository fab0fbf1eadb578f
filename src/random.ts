import { ArgumentError, type Problem } from './errors.ts';

const SEED_MIN = -(2n ** 63n);
const SEED_MAX = 2n ** 64n - 1n;

/**
 * What is wrong with a seed.
 * @param seed a safe integer, or a bigint in [-2^63, 2^64)
 * @returns one problem, or none
 */
export function seedProblems(seed: unknown): Problem[] {
  const usable = typeof seed === 'bigint' ? SEED_MIN <= seed && seed <= SEED_MAX : Number.isSafeInteger(seed);
  if (usable) return [];
  return [
    { where: 'seed', expected: 'an integer of at most 64 bits', found: String(seed), fix: 'Give a larger integer than 2^53 as a bigint.' },
  ];
}

/**
 * One output of SplitMix64; the state after it is `state + 0x9e3779b97f4a7c15`.
 * @param state 64 bits
 * @returns 64 bits
 * Source: Steele, Lea, Flood, Fast Splittable Pseudorandom Number Generators, doi:10.1145/2660193.2660195; prng.di.unimi.it/splitmix64.c
 */
export function splitmix64(state: bigint): bigint {
  let z = BigInt.asUintN(64, state + 0x9e3779b97f4a7c15n);
  z = BigInt.asUintN(64, (z ^ (z >> 30n)) * 0xbf58476d1ce4e5b9n);
  z = BigInt.asUintN(64, (z ^ (z >> 27n)) * 0x94d049bb133111ebn);
  return z ^ (z >> 31n);
}

/**
 * One output of xoshiro128** 1.1, which steps its state.
 * @param s [4] u32, not all zero; stepped in place
 * @returns 32 bits, an integer in [0, 2^32)
 * Source: Blackman, Vigna, Scrambled Linear Pseudorandom Number Generators, arXiv:1805.01407; prng.di.unimi.it/xoshiro128starstar.c
 */
export function xoshiro128starstar(s: Uint32Array): number {
  const output = Math.imul(rotl(Math.imul(s[1]!, 5), 7), 9) >>> 0;
  const shifted = s[1]! << 9;
  s[2]! ^= s[0]!;
  s[3]! ^= s[1]!;
  s[1]! ^= s[2]!;
  s[0]! ^= s[3]!;
  s[2]! ^= shifted;
  s[3] = rotl(s[3]!, 11);
  return output;
}

function rotl(x: number, k: number): number {
  return (x << k) | (x >>> (32 - k));
}

/**
 * The random numbers of one generation: xoshiro128**, its 128 bits filled by two outputs of SplitMix64, low words first.
 * Integer operations only, so a seed gives the same numbers on every machine and engine.
 */
export class Random {
  // SplitMix64 is a bijection of its state, so two outputs in a row are never both 0, the one state that xoshiro cannot leave.
  readonly #state: Uint32Array; // [4]

  /**
   * @param seed a safe integer, or a bigint in [-2^63, 2^64); taken modulo 2^64
   * @throws {ArgumentError} when it is anything else
   */
  constructor(seed: number | bigint) {
    const problems = seedProblems(seed);
    if (problems.length > 0) throw new ArgumentError(problems);
    const begin = BigInt.asUintN(64, BigInt(seed));
    const words = [splitmix64(begin), splitmix64(begin + 0x9e3779b97f4a7c15n)];
    this.#state = Uint32Array.from(words.flatMap((word) => [Number(word & 0xffffffffn), Number(word >> 32n)]));
  }

  /**
   * The next number.
   * @returns a multiple of 2^-53 in [0, 1): 27 high bits of one output above 26 high bits of the next
   */
  uniform(): number {
    const high = xoshiro128starstar(this.#state) >>> 5;
    const low = xoshiro128starstar(this.#state) >>> 6;
    return (high * 2 ** 26 + low) / 2 ** 53;
  }
}
