import { silu } from '../reference/activations.ts';
import { attention } from '../reference/attention.ts';
import { causal_conv1d } from '../reference/causal_conv1d.ts';
import { gated_delta_rule } from '../reference/gated_delta_rule.ts';
import { rms_norm } from '../reference/rms_norm.ts';
import { TAPS } from './parameters.ts';
import type { Values } from './trace_file.ts';

// The ops as mistaken implementations compute them, over the tensors of a trace: the reference kernels, and what they cannot be bent to.

/** x / rms(x) over the last D elements. */
export function normalized(x: Float64Array, D: number, eps: number): Float64Array {
  const y = new Float64Array(x.length);
  rms_norm(y, x, new Float64Array(D).fill(1), x.length / D, D, eps);
  return y;
}

/** Element by element; b may be shorter, and is then repeated. */
export function product(a: Float64Array, b: ArrayLike<number>): Float64Array {
  return a.map((value, i) => value * b[i % b.length]!);
}

export function sum(terms: readonly Values[]): Float64Array {
  return Float64Array.from(terms[0]!.data, (_, i) => terms.reduce((total, { data }) => total + data[i]!, 0));
}

export function silus(x: Values): Float64Array {
  return Float64Array.from(x.data, silu);
}

/** [T, C] of x [T, C] and weight [TAPS, C]; with `activation` false what silu would be applied to. */
export function convolution(x: Float64Array, weight: Float64Array, activation = true): Float64Array {
  const C = weight.length / TAPS;
  const y = new Float64Array(x.length);
  const T = x.length / C;
  if (activation) causal_conv1d(y, x, weight, new Float64Array((TAPS - 1) * C), T, C, TAPS);
  else
    y.forEach((_, i) => {
      for (let j = 0; j < TAPS; j++) y[i]! += weight[j * C + (i % C)]! * (x[i - (TAPS - 1 - j) * C] ?? 0);
    });
  return y;
}

/** Inputs of the delta rule: q, k [T, Hk, Dk], v [T, H, Dv], g, beta [T, H]. */
export type DeltaInputs = readonly [q: Values, k: Values, v: Values, g: Values, beta: Values];

/**
 * The delta rule from an empty state, with key heads taken in turn (h mod Hk) if `tiled`, where the release repeats each (h div (H / Hk)).
 * @returns o [T, H, Dv] and the state after the last token [H, Dk, Dv]
 */
export function deltaRule([q, k, v, g, beta]: DeltaInputs, { tiled = false } = {}): { o: Float64Array; state: Float64Array } {
  const [T, H, Dv] = v.shape as [number, number, number];
  const [, Hk, Dk] = q.shape as [number, number, number];
  const [queries, keys] = tiled ? [tile(q, H), tile(k, H)] : [q.data, k.data];
  const o = new Float64Array(T * H * Dv);
  const state = new Float64Array(H * Dk * Dv);
  gated_delta_rule(o, queries, keys, v.data, g.data, beta.data, state, T, { Hk: tiled ? H : Hk, H, Dk, Dv });
  return { o, state };
}

/** x [T, heads, D] with head h taken from h mod heads, [T, H, D]. */
function tile({ shape, data }: Values, H: number): Float64Array {
  const [T, heads, D] = shape as [number, number, number];
  return Float64Array.from({ length: T * H * D }, (_, i) => {
    const [t, h, d] = [Math.floor(i / (H * D)), Math.floor(i / D) % H, i % D];
    return data[(t * heads + (h % heads)) * D + d]!;
  });
}

/** Where a step of the delta rule may go wrong. */
export interface DeltaStep {
  readonly read_before_decay?: boolean;
  readonly output_before_write?: boolean;
  /** Applied to the state after each token. */
  readonly round?: (x: number) => number;
}

/** The delta rule token by token, with a mistake. */
export function mistakenDeltaRule([q, k, v, g, beta]: DeltaInputs, step: DeltaStep): Float64Array {
  const [T, H, Dv] = v.shape as [number, number, number];
  const [, Hk, Dk] = q.shape as [number, number, number];
  const round = step.round ?? ((x) => x);
  const o = new Float64Array(T * H * Dv);
  for (let h = 0; h < H; h++) {
    const key = Math.floor(h / (H / Hk));
    const S = new Float64Array(Dk * Dv);
    for (let t = 0; t < T; t++) {
      const at = (t * Hk + key) * Dk;
      const decay = Math.exp(g.data[t * H + h]!);
      for (let j = 0; j < Dv; j++) {
        const out = (t * H + h) * Dv + j;
        let read = 0;
        let output = 0;
        for (let i = 0; i < Dk; i++) {
          read += S[i * Dv + j]! * k.data[at + i]!;
          output += S[i * Dv + j]! * q.data[at + i]!;
        }
        const u = beta.data[t * H + h]! * (v.data[out]! - read * (step.read_before_decay ? 1 : decay));
        o[out] = output * decay;
        for (let i = 0; i < Dk; i++) {
          const write = k.data[at + i]! * u;
          if (!step.output_before_write) o[out]! += write * q.data[at + i]!;
          S[i * Dv + j] = round(S[i * Dv + j]! * decay + write);
        }
        o[out]! /= Math.sqrt(Dk);
      }
    }
  }
  return o;
}

/**
 * The delta rule as it is where calls hand a wrong state on. Where calls begin is found on the way: at a token whose output is not the
 * suspected one and is nearer to it with the changed state.
 * @param suspect [T, H, Dv] @param bound of the RMS of a row's difference over that of all of `suspect`
 * @param change what a call makes of the state [H, Dk, Dv] that the one before it left
 * @returns null when no call begins
 */
export function deltaRuleInCalls(
  [q, k, v, g, beta]: DeltaInputs,
  suspect: Float32Array | Float64Array,
  bound: number,
  change: (state: Float64Array, Dk: number, Dv: number) => Float64Array,
): Float64Array | null {
  const [T, H, Dv] = v.shape as [number, number, number];
  const [, Hk, Dk] = q.shape as [number, number, number];
  const row = ({ data }: Pick<Values, 'data'>, t: number) => data.subarray((t * data.length) / T, ((t + 1) * data.length) / T);
  const squares = (values: ArrayLike<number>, less: ArrayLike<number> | null) =>
    Array.from(values).reduce((total, value, i) => total + (value - (less?.[i] ?? 0)) ** 2, 0);
  const most = (bound ** 2 * squares(suspect, null)) / T;
  const step = (t: number, before: Float64Array) => {
    const state = before.slice();
    const o = new Float64Array(H * Dv);
    gated_delta_rule(o, row(q, t), row(k, t), row(v, t), row(g, t), row(beta, t), state, 1, { Hk, H, Dk, Dv });
    return { o, state, error: squares(o, row({ data: suspect }, t)) };
  };
  const output = new Float64Array(T * H * Dv);
  let state: Float64Array = new Float64Array(H * Dk * Dv);
  let calls = 0;
  for (let t = 0; t < T; t++) {
    let taken = step(t, state);
    if (taken.error > most && t > 0) {
      const changed = step(t, change(state, Dk, Dv));
      if (changed.error < taken.error) {
        taken = changed;
        calls++;
      }
    }
    output.set(taken.o, t * H * Dv);
    ({ state } = taken);
  }
  return calls === 0 ? null : output;
}

/** Causal attention over the last `window` positions: q [T, H, Dh], k, v [T, Hkv, Dh] -> [T, H, Dh]. */
export function attend(q: Values, k: Values, v: Values, window: number, { tiled = false } = {}): Float64Array {
  const [T, H, Dh] = q.shape as [number, number, number];
  const Hkv = tiled ? H : k.shape[1]!;
  const byHead = (x: Values) => {
    const rows = tiled ? tile(x, H) : x.data; // [T, Hkv, Dh] -> [Hkv, T, Dh]
    return Float64Array.from(rows, (_, i) => rows[((Math.floor(i / Dh) % T) * Hkv + Math.floor(i / (T * Dh))) * Dh + (i % Dh)]!);
  };
  const o = new Float64Array(T * H * Dh);
  attention(o, Float64Array.from(q.data), byHead(k), byHead(v), T, 0, { S: T, H, Hkv, Dh, window });
  return o;
}

/** x [T, H, Dh] with the pairs (i, i + Dh / 2) of row t turned and scaled by the complex numbers turns[t * Dh / 2 + i]. */
export function turned({ shape, data }: Values, turns: readonly Complex[], interleaved = false): Float64Array {
  const [, H, Dh] = shape as [number, number, number];
  const half = Dh / 2;
  const y = new Float64Array(data.length);
  for (let pair = 0; pair < data.length / 2; pair++) {
    const i = pair % half;
    const head = Math.floor(pair / half);
    const a = head * Dh + (interleaved ? 2 * i : i);
    const b = a + (interleaved ? 1 : half);
    const [re, im] = turns[Math.floor(head / H) * half + i]!;
    y[a] = data[a]! * re - data[b]! * im;
    y[b] = data[b]! * re + data[a]! * im;
  }
  return y;
}

export type Complex = readonly [re: number, im: number];

/** What `turned` was given, from its input and its output, by least squares over the heads. */
export function turnsBetween(x: Values, y: Values): Complex[] {
  const [T, H, Dh] = x.shape as [number, number, number];
  const half = Dh / 2;
  return Array.from({ length: T * half }, (_, at) => {
    let [re, im, squares] = [0, 0, 0];
    for (let h = 0; h < H; h++) {
      const a = (Math.floor(at / half) * H + h) * Dh + (at % half);
      const [x1, x2, y1, y2] = [x.data[a]!, x.data[a + half]!, y.data[a]!, y.data[a + half]!];
      re += x1 * y1 + x2 * y2;
      im += x1 * y2 - x2 * y1;
      squares += x1 * x1 + x2 * x2;
    }
    return [re / squares, im / squares] as const;
  });
}

/** The turns of plain rotary position embeddings: position * theta^(-2i / Dh) radians. */
export function ropeTurns(T: number, Dh: number, theta: number): Complex[] {
  return Array.from({ length: (T * Dh) / 2 }, (_, at) => {
    const angle = Math.floor(at / (Dh / 2)) * theta ** ((-2 * (at % (Dh / 2))) / Dh);
    return [Math.cos(angle), Math.sin(angle)] as const;
  });
}
