import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { Arena } from '../../src/runtime/arena.ts';
import { attentionScratch, chunkedScratch } from '../../src/runtime/kernels.ts';
import { type KernelExports, kernelModule } from '../../src/runtime/wasm_module.ts';
import { type Draw, drawn } from '../support/arbitraries.ts';

const PANEL = 16;
const LINEAR_SCRATCH = 2048; // words
const PAGE = 65536;
const SENTINEL = 0x7fc0dead; // a NaN, as f32

/** Words of memory that a call may write, and which index of the range [begin, end) word `i` of them belongs to. */
interface Output {
  readonly ptr: number;
  readonly length: number;
  readonly owner: (word: number) => number;
}

/** A call of one export. */
interface Call {
  /** Outputs are computed for [begin, end) of [0, n). */
  readonly n: number;
  readonly run: (begin: number, end: number) => void;
  readonly outputs: readonly Output[];
}

const module = await kernelModule();
const memory = new WebAssembly.Memory({ initial: 8, maximum: 8 });
const core = new WebAssembly.Instance(module, { env: { memory } }).exports as KernelExports;
const words = new Uint32Array(memory.buffer);

/** The memory, full of sentinels again; a call's arrays lie in it with space between them. */
class Room {
  readonly outputs: Output[] = [];
  private readonly arena = new Arena(64);
  private seed = 1;

  constructor() {
    words.fill(SENTINEL);
  }

  take(length: number): number {
    const ptr = this.arena.take(length * 4);
    this.arena.take(64);
    if (this.arena.end > 8 * PAGE) throw new Error('the memory is too small for this case');
    return ptr;
  }

  floats(rows: number, cols: number, draw: Draw = 'normal', map: (value: number) => number = (value) => value): number {
    const ptr = this.take(rows * cols);
    new Float32Array(memory.buffer, ptr, rows * cols).set(drawn(rows, cols, draw, this.seed++).data.map(map));
    return ptr;
  }

  /** An output; `input`: where it lies if the call reads it, too. */
  output(length: number, owner: Output['owner'], input = this.take(length)): number {
    this.outputs.push({ ptr: input, length, owner });
    return input;
  }

  call(n: number, run: Run): Call {
    return { n, run, outputs: this.outputs };
  }
}

interface Sizes {
  readonly T: number;
  readonly H: number;
  readonly repeat: number;
  readonly Dk: number;
  readonly Dv: number;
}

type Build = (m: Room, sizes: Sizes) => Call;

type Run = Call['run'];

function rowwise(build: (m: Room, T: number, D: number, y: number) => Run): Build {
  return (m, { T, Dk: D }) => {
    const y = m.output(T * D, (i) => Math.floor(i / D));
    return m.call(T, build(m, T, D, y));
  };
}

function elementwise(build: (m: Room, n: number, y: number) => Run): Build {
  return (m, { T, Dk: D }) => {
    const y = m.output(T * D, (i) => i);
    return m.call(T * D, build(m, T * D, y));
  };
}

function linear(name: 'linear_f32' | 'linear_bf16'): Build {
  return (m, { T, Dk, H, Dv }) => {
    const [K, N] = [5 * Dk, H * Dv];
    const panels = Math.ceil(N / PANEL);
    const y = m.output(T * N, (i) => Math.floor((i % N) / PANEL));
    const [x, w, bias, scratch] = [m.floats(T, K), m.floats(panels * PANEL, K), m.floats(1, N), m.take(LINEAR_SCRATCH)];
    return m.call(panels, (begin, end) => {
      core[name](y, x, w, bias, scratch, T, K, N, begin, end);
      words.fill(SENTINEL, scratch / 4, scratch / 4 + LINEAR_SCRATCH); // what it holds after a call means nothing
    });
  };
}

function embedding(name: 'embedding_f32' | 'embedding_bf16'): Build {
  return rowwise((m, T, D, y) => {
    const [table, ids] = [m.floats(20, D), m.take(T)];
    new Int32Array(memory.buffer, ids, T).forEach((_, t, all) => {
      all[t] = (7 * t) % 20;
    });
    return (begin, end) => core[name](y, ids, table, D, begin, end);
  });
}

/** Each range finds its rows at the beginning of its source, as a loader puts them there. */
function copy(name: 'copy_bf16' | 'copy_f16' | 'copy_f32', source_bytes: number, table_bytes: number): Build {
  return (m, { T: V, Dk }) => {
    const D = 2 * Dk; // even: no two rows of 16-bit values share a word
    const table = m.output((V * D * table_bytes) / 4, (i) => Math.floor((i * 4) / (D * table_bytes)));
    const source = m.floats(V, (D * source_bytes) / 4);
    return m.call(V, (begin, end) => core[name](table, source + begin * D * source_bytes, D, begin, end));
  };
}

function delta_rule(name: 'gated_delta_rule_recurrent' | 'gated_delta_rule_chunked'): Build {
  return (m, { T, H: Hk, repeat, Dk, Dv }) => {
    const H = Hk * repeat;
    const o = m.output(T * H * Dv, (i) => Math.floor(i / Dv) % H);
    const S = m.output(H * Dk * Dv, (i) => Math.floor(i / (Dk * Dv)), m.floats(H, Dk * Dv));
    const small = (value: number) => value / Math.sqrt(Dk);
    const [q, k, v] = [m.floats(T, Hk * Dk, 'normal', small), m.floats(T, Hk * Dk, 'normal', small), m.floats(T, H * Dv)];
    const [g, beta] = [m.floats(T, H, 'normal', (value) => -Math.abs(value)), m.floats(T, H, 'normal', (value) => Math.abs(value) % 2)];
    if (name === 'gated_delta_rule_recurrent')
      return m.call(H, (begin, end) => core[name](o, q, k, v, g, beta, S, T, Hk, H, Dk, Dv, begin, end));
    const scratch = m.output(H * chunkedScratch, (i) => Math.floor(i / chunkedScratch));
    return m.call(H, (begin, end) => core[name](o, q, k, v, g, beta, S, scratch, T, Hk, H, Dk, Dv, begin, end));
  };
}

/** Every export that takes a range, and how it is called. */
const BUILDS: Readonly<Record<string, Build>> = {
  add: elementwise((m, n, y) => {
    core.copy_f32(y, m.floats(1, n), n, 0, 1);
    const x = m.floats(1, n);
    return (begin, end) => core.add(y, x, begin, end);
  }),
  attention(m, { T, H: Hkv, repeat, Dk: Dh, Dv: past }) {
    const [H, S] = [Hkv * repeat, past + T + 2];
    const o = m.output(T * H * Dh, (i) => Math.floor(i / Dh) % H);
    const scores = m.output(H * attentionScratch, (i) => Math.floor(i / attentionScratch));
    const [q, k, v] = [m.floats(T, H * Dh), m.floats(Hkv, S * Dh), m.floats(Hkv, S * Dh)];
    return m.call(H, (begin, end) => core.attention(o, q, k, v, scores, T, past, S, H, Hkv, Dh, 1 + (past % 40), begin, end));
  },
  causal_conv1d(m, { T, Dk: C, H }) {
    const W = H + 1;
    const y = m.output(T * C, (i) => i % C);
    const state = m.output((W - 1) * C, (i) => i % C, m.floats(W - 1, C));
    const [x, weight] = [m.floats(T, C), m.floats(W, C)];
    return m.call(C, (begin, end) => core.causal_conv1d(y, x, weight, state, T, C, W, begin, end));
  },
  copy_bf16: copy('copy_bf16', 2, 2),
  copy_f16: copy('copy_f16', 2, 4),
  copy_f32: copy('copy_f32', 4, 4),
  embedding_bf16: embedding('embedding_bf16'),
  embedding_f32: embedding('embedding_f32'),
  gated_delta_rule_chunked: delta_rule('gated_delta_rule_chunked'),
  gated_delta_rule_recurrent: delta_rule('gated_delta_rule_recurrent'),
  gdn_beta(m, { T, Dk: H }) {
    const [beta, b] = [m.output(T * H, (i) => i % H), m.floats(T, H)];
    return m.call(H, (begin, end) => core.gdn_beta(beta, b, 2, T, H, begin, end));
  },
  gdn_gate(m, { T, Dk: H }) {
    const g = m.output(T * H, (i) => i % H);
    const [a, A_log, dt_bias] = [m.floats(T, H), m.floats(1, H), m.floats(1, H)];
    return m.call(H, (begin, end) => core.gdn_gate(g, a, A_log, dt_bias, T, H, begin, end));
  },
  kv_append(m, { T, Dk: Hkv, H: Dh }) {
    const S = T + 5;
    // Only the positions of this call: those around them belong to nobody.
    const written = (i: number) => (Math.floor(i / Dh) % S >= 3 && Math.floor(i / Dh) % S < 3 + T ? Math.floor(i / (S * Dh)) : -1);
    const [cache, x] = [m.output(Hkv * S * Dh, written), m.floats(T, Hkv * Dh)];
    return m.call(Hkv, (begin, end) => core.kv_append(cache, x, T, 3, S, Hkv, Dh, begin, end));
  },
  l2_norm: rowwise((m, T, D, y) => {
    const x = m.floats(T, D);
    return (begin, end) => core.l2_norm(y, x, D, 1e-6, begin, end);
  }),
  linear_bf16: linear('linear_bf16'),
  linear_f32: linear('linear_f32'),
  rms_norm: rowwise((m, T, D, y) => {
    const [x, weight] = [m.floats(T, D), m.floats(1, D)];
    return (begin, end) => core.rms_norm(y, x, weight, D, 1e-6, begin, end);
  }),
  rms_norm_gated: rowwise((m, T, D, y) => {
    const [x, gate, weight] = [m.floats(T, D), m.floats(T, D), m.floats(1, D)];
    return (begin, end) => core.rms_norm_gated(y, x, gate, weight, D, 1e-5, begin, end);
  }),
  rotary(m, { T, H, Dk: half }) {
    const x = m.output(T * H * 2 * half, (i) => Math.floor(i / (H * 2 * half)), m.floats(T, H * 2 * half));
    const [cos, sin] = [m.floats(T + 3, half), m.floats(T + 3, half)];
    return m.call(T, (begin, end) => core.rotary(x, cos, sin, 3, H, 2 * half, begin, end));
  },
  rotary_table(m, { T, Dk: half }) {
    const [cos, sin] = [m.output(T * half, (i) => Math.floor(i / half)), m.output(T * half, (i) => Math.floor(i / half))];
    const inv_freq = m.take(2 * half);
    new Float64Array(memory.buffer, inv_freq, half).forEach((_, i, all) => {
      all[i] = 1 / (1 + i);
    });
    return m.call(T, (begin, end) => core.rotary_table(cos, sin, inv_freq, half, 1.2, begin, end));
  },
  softmax: rowwise((m, T, D, y) => {
    const x = m.floats(T, D);
    return (begin, end) => core.softmax(y, x, D, begin, end);
  }),
  swiglu: elementwise((m, n, y) => {
    const [gate, up] = [m.floats(1, n), m.floats(1, n)];
    return (begin, end) => core.swiglu(y, gate, up, begin, end);
  }),
};

test('every export that takes a range is here', () => {
  const exported = WebAssembly.Module.exports(module).map(({ name }) => name);
  // linear.test.ts hands weights over in pieces, since the layout of packed weights is their own affair.
  const others = ['exp64', 'log64', 'pack_bf16', 'pack_f16', 'pack_f32'];
  expect([...Object.keys(BUILDS), ...others].sort()).toEqual(exported.sort());
});

const sizes = fc.record({
  T: fc.integer({ min: 1, max: 20 }),
  H: fc.integer({ min: 1, max: 3 }),
  repeat: fc.integer({ min: 1, max: 3 }),
  Dk: fc.integer({ min: 1, max: 40 }),
  Dv: fc.integer({ min: 1, max: 45 }),
});

describe.each(Object.entries(BUILDS).map(([name, build]) => ({ name, build })))('$name', ({ build }) => {
  const whole = (given: Sizes) => {
    const call = build(new Room(), given);
    const before = words.slice();
    call.run(0, call.n);
    return { call, before, after: words.slice() };
  };
  const same = (a: Uint32Array, b: Uint32Array) => expect(Buffer.compare(new Uint8Array(a.buffer), new Uint8Array(b.buffer))).toBe(0);

  test('a range writes its outputs and nothing else', () => {
    fc.assert(
      fc.property(sizes, fc.nat(), fc.nat(), (given, a, b) => {
        const { call, before: want, after } = whole(given);
        const [begin, end] = [a % (call.n + 1), b % (call.n + 1)].sort((x, y) => x - y) as [number, number];
        for (const { ptr, length, owner } of call.outputs) {
          for (let i = 0; i < length; i++) {
            const at = ptr / 4 + i;
            if (begin <= owner(i) && owner(i) < end) want[at] = after[at]!;
          }
        }
        const part = build(new Room(), given);
        part.run(begin, end);
        same(words, want);
      }),
      { numRuns: 20 },
    );
  });

  test('ranges in any order = one call, bit for bit', () => {
    fc.assert(
      fc.property(sizes, fc.array(fc.nat(), { maxLength: 3 }), fc.infiniteStream(fc.nat()), (given, at, order) => {
        const { call, after } = whole(given);
        const edges = [0, ...at.map((i) => i % (call.n + 1)), call.n].sort((a, b) => a - b);
        const ranges = edges.slice(1).map((end, i) => ({ begin: edges[i]!, end, turn: order.next().value! }));
        const parts = build(new Room(), given);
        for (const { begin, end } of ranges.sort((a, b) => a.turn - b.turn)) parts.run(begin, end);
        same(words, after);
      }),
      { numRuns: 15 },
    );
  });

  test('every output is written', () => {
    fc.assert(
      fc.property(sizes, (given) => {
        const { call, after } = whole(given);
        for (const { ptr, length, owner } of call.outputs.slice(0, 1)) {
          for (let i = 0; i < length; i++) if (owner(i) >= 0 && after[ptr / 4 + i] === SENTINEL) throw new Error(`word ${i} of the output`);
        }
      }),
      { numRuns: 10 },
    );
  });
});
