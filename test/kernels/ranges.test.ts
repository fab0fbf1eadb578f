import fc from 'fast-check';
import { beforeAll, describe, expect, test } from 'vitest';
import { Arena } from '../../src/runtime/arena.ts';
import { chunkedScratch, KV_CODES, type KVFormat, kvWords, roundedScratch } from '../../src/runtime/kernels.ts';
import {
  DTYPE_BYTES,
  DTYPE_CODES,
  FORMAT_CODES,
  formatOf,
  matrixBytes,
  PANEL,
  type WeightDtype,
  type WeightFormat,
} from '../../src/runtime/tensor.ts';
import { type KernelExports, kernelModule, WASM_KERNELS, type WasmKernelName } from '../../src/runtime/wasm_module.ts';
import { type Draw, drawn } from '../support/arbitraries.ts';

const PAGE = 65536;
/** Of the arrays; the scratch of the thread lies behind them, where nothing is compared. */
const PAGES = 8;
/** Words that a piece of a limit leaves. */
const LEFT = 8;
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
const memory = new WebAssembly.Memory({ initial: 2 * PAGES, maximum: 2 * PAGES });
const core = new WebAssembly.Instance(module, { env: { memory } }).exports as KernelExports;
core.set_scratch(PAGES * PAGE);
const words = new Uint32Array(memory.buffer, 0, (PAGES * PAGE) / 4);

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
    if (this.arena.end > PAGES * PAGE) throw new Error('the memory is too small for this case');
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

function linear(name: Extract<WasmKernelName, `linear_${string}`>): Build {
  return (m, { T, Dk, H, Dv }) => {
    const [K, N] = [5 * Dk, H * Dv];
    const panels = Math.ceil(N / PANEL);
    const y = m.output(T * N, (i) => Math.floor((i % N) / PANEL));
    const [x, bias, source] = [m.floats(T, K), m.floats(1, N), m.floats(N, K)];
    const format = name.startsWith('linear_q8') ? 'Q8' : name.startsWith('linear_q4') ? 'Q4' : name === 'linear_bf16' ? 'BF16' : 'F32';
    const w = m.take(matrixBytes(format, N, K) / 4);
    core.pack(w, source, format === 'BF16' ? DTYPE_CODES.BF16 : DTYPE_CODES.F32, FORMAT_CODES[format], 0, K, N, 0, panels);
    const xq = m.take(T * roundedScratch(K));
    core.round_rows(xq, x, K, 0, T);
    return m.call(panels, (begin, end) => core[name](y, name.endsWith('integer') ? xq : x, w, bias, T, K, N, begin, end));
  };
}

/** Two weights of one x, in two formats. */
function linear_group(m: Room, { T, Dk: K, H, Dv }: Sizes): Call {
  const x = m.floats(T, K);
  const xq = m.take(T * roundedScratch(K));
  core.round_rows(xq, x, K, 0, T);
  const formats = ['F32', 'Q8'] as const;
  const widths = [H * Dv, Dv + 20];
  const table = m.take(12);
  let first = 0;
  formats.forEach((format, i) => {
    const N = widths[i]!;
    const [before, panels] = [first, Math.ceil(N / PANEL)];
    const y = m.output(T * N, (at) => before + Math.floor((at % N) / PANEL));
    const w = m.take(matrixBytes(format, N, K) / 4);
    core.pack(w, m.floats(N, K), DTYPE_CODES.F32, FORMAT_CODES[format], 0, K, N, 0, panels);
    words.set([y, w, 0, N, FORMAT_CODES[format], panels], table / 4 + 6 * i);
    first += panels;
  });
  return m.call(first, (begin, end) => core.linear_group(table, 2, x, xq, T, K, begin, end));
}

/** What measures the machine: a number for each piece of work. */
/** @param words that a piece leaves */
function limit(words: number, run: (sink: number, begin: number, end: number) => void): Build {
  return (m, { T }) => {
    const sink = m.output(T * words, (i) => Math.floor(i / words));
    return m.call(T, (begin, end) => run(sink, begin, end));
  };
}

/** Rows of f32 values to panels of a format; K is less than a slab, so that a panel lies in one piece. */
function pack(format: WeightFormat): Build {
  return (m, { T, Dk: K, Dv }) => {
    const N = T * Dv;
    const panels = Math.ceil(N / PANEL);
    const length = matrixBytes(format, N, K) / 4;
    const w = m.output(length, (i) => Math.floor((i * panels) / length));
    const source = m.floats(N, K);
    const dtype = format === 'BF16' ? DTYPE_CODES.BF16 : DTYPE_CODES.F32;
    return m.call(panels, (begin, end) => core.pack(w, source, dtype, FORMAT_CODES[format], 0, K, N, begin, end));
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

function store_rows(dtype: WeightDtype): Build {
  return (m, { T: V, Dk }) => {
    const D = 2 * Dk; // even: no two rows of 16-bit values share a word
    const words_of_row = dtype === 'BF16' ? Dk : D;
    const table = m.output(V * words_of_row, (i) => Math.floor(i / words_of_row));
    const source = m.floats(V, (D * DTYPE_BYTES[dtype]) / 4);
    return m.call(V, (begin, end) => core.store_rows(table, source, DTYPE_CODES[dtype], FORMAT_CODES[formatOf(dtype)], 0, D, begin, end));
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

function attention(format: KVFormat): Build {
  return (m, { T, H: Hkv, repeat, Dk: Dh, Dv: past }) => {
    const [H, S] = [Hkv * repeat, past + T + 2];
    const o = m.output(T * H * Dh, (i) => Math.floor(i / Dh) % H);
    const q = m.floats(T, H * Dh);
    const [k, v] = [0, 1].map(() => {
      const cache = m.take(Hkv * S * kvWords(format, Dh));
      core.kv_append(cache, m.floats(past + T, Hkv * Dh), past + T, 0, S, Hkv, Dh, KV_CODES[format], 0, Hkv);
      return cache;
    }) as [number, number];
    const window = 1 + (past % 40);
    return m.call(H, (begin, end) => core.attention(o, q, k, v, T, past, S, H, Hkv, Dh, window, KV_CODES[format], begin, end));
  };
}

function kv_append(format: KVFormat): Build {
  return (m, { T, Dk: Hkv, H: Dh }) => {
    const S = T + 5;
    const words = kvWords(format, Dh);
    // Only the positions of this call: those around them belong to nobody.
    const written = (i: number) => (Math.floor(i / words) % S >= 3 && Math.floor(i / words) % S < 3 + T ? Math.floor(i / (S * words)) : -1);
    const [cache, x] = [m.output(Hkv * S * words, written), m.floats(T, Hkv * Dh)];
    return m.call(Hkv, (begin, end) => core.kv_append(cache, x, T, 3, S, Hkv, Dh, KV_CODES[format], begin, end));
  };
}

/** Every export that takes a range, and how it is called. */
const BUILDS: Readonly<Record<string, Build>> = {
  add: elementwise((m, n, y) => {
    core.store_rows(y, m.floats(1, n), DTYPE_CODES.F32, FORMAT_CODES.F32, 0, n, 0, 1);
    const x = m.floats(1, n);
    return (begin, end) => core.add(y, x, begin, end);
  }),
  attention: attention('F32'),
  'attention f16': attention('F16'),
  'attention q8': attention('Q8'),
  causal_conv1d(m, { T, Dk: C, H }) {
    const W = H + 1;
    const y = m.output(T * C, (i) => i % C);
    const state = m.output((W - 1) * C, (i) => i % C, m.floats(W - 1, C));
    const [x, weight] = [m.floats(T, C), m.floats(W, C)];
    return m.call(C, (begin, end) => core.causal_conv1d(y, x, weight, state, T, C, W, begin, end));
  },
  embedding_bf16: embedding('embedding_bf16'),
  embedding_f32: embedding('embedding_f32'),
  gated_delta_rule_chunked: delta_rule('gated_delta_rule_chunked'),
  gated_delta_rule_recurrent: delta_rule('gated_delta_rule_recurrent'),
  f32_peak: limit(LEFT, (sink, begin, end) => core.f32_peak(sink, 3, 0.9, 0.1, begin, end)),
  gdn_beta(m, { T, Dk: H }) {
    const [beta, b] = [m.output(T * H, (i) => i % H), m.floats(T, H)];
    return m.call(H, (begin, end) => core.gdn_beta(beta, b, 2, T, H, begin, end));
  },
  gdn_gate(m, { T, Dk: H }) {
    const g = m.output(T * H, (i) => i % H);
    const [a, A_log, dt_bias] = [m.floats(T, H), m.floats(1, H), m.floats(1, H)];
    return m.call(H, (begin, end) => core.gdn_gate(g, a, A_log, dt_bias, T, H, begin, end));
  },
  i16_peak: limit(LEFT, (sink, begin, end) => core.i16_peak(sink, 3, 5, begin, end)),
  i8_peak: limit(LEFT, (sink, begin, end) => core.i8_peak(sink, 3, 5, begin, end)),
  kv_append: kv_append('F32'),
  'kv_append f16': kv_append('F16'),
  'kv_append q8': kv_append('Q8'),
  l2_norm: rowwise((m, T, D, y) => {
    const x = m.floats(T, D);
    return (begin, end) => core.l2_norm(y, x, D, 1e-6, begin, end);
  }),
  linear_bf16: linear('linear_bf16'),
  linear_f32: linear('linear_f32'),
  linear_q4: linear('linear_q4'),
  linear_q4_integer: linear('linear_q4_integer'),
  linear_q8: linear('linear_q8'),
  linear_q8_integer: linear('linear_q8_integer'),
  linear_group,
  memory_read: limit(LEFT, (sink, begin, end) => core.memory_read(sink, PAGES * PAGE, 256, begin, end)),
  'pack f32': pack('F32'),
  'pack bf16': pack('BF16'),
  'pack q8': pack('Q8'),
  'pack q4': pack('Q4'),
  round_rows: (m, { T, Dk, H }) => {
    const K = Dk * H;
    const length = roundedScratch(K);
    const written = length - Math.ceil(K / 32) * 10; // the strict build leaves out what relaxed dots take
    const xq = m.output(T * length, (i) => (i % length < written ? Math.floor(i / length) : -1));
    const x = m.floats(T, K);
    return m.call(T, (begin, end) => core.round_rows(xq, x, K, begin, end));
  },
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
  'store_rows bf16': store_rows('BF16'),
  'store_rows f16': store_rows('F16'),
  'store_rows f32': store_rows('F32'),
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
  const names = new Set(Object.keys(BUILDS).map((name) => name.split(' ')[0]!));
  expect([...names].sort()).toEqual([...WASM_KERNELS]);
  const within = ['f32_wide', 'i16_wide', 'i8_wide', 'rows_q4', 'rows_q4_bytes', 'rows_q8']; // of f32_peak, i16_peak, …
  expect([...names, ...within, 'byte_dot_kind', 'exp32', 'exp64', 'log64', 'set_scratch', 'set_wide'].sort()).toEqual(exported.sort());
});

const sizes = fc.record({
  T: fc.integer({ min: 1, max: 20 }),
  H: fc.integer({ min: 1, max: 3 }),
  repeat: fc.integer({ min: 1, max: 3 }),
  Dk: fc.integer({ min: 1, max: 40 }),
  Dv: fc.integer({ min: 1, max: 45 }),
});

const both = Object.entries(BUILDS).flatMap(([name, build]) => [128, 256].map((bits) => ({ name, bits, build })));

describe.each(both)('$name, vectors of $bits bits', ({ bits, build }) => {
  beforeAll(() => core.set_wide(Number(bits === 256)));

  const whole = (given: Sizes) => {
    const call = build(new Room(), given);
    const before = words.slice();
    call.run(0, call.n);
    return { call, before, after: words.slice() };
  };
  const bytes = ({ buffer, byteOffset, byteLength }: Uint32Array) => new Uint8Array(buffer, byteOffset, byteLength);
  const same = (a: Uint32Array, b: Uint32Array) => expect(Buffer.compare(bytes(a), bytes(b))).toBe(0);

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
