import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { StateCheckpoints } from '../../src/chat/state_checkpoints.ts';
import { ArgumentError } from '../../src/errors.ts';
import { loadModel } from '../../src/load.ts';
import type { Snapshot } from '../../src/model/olmo_hybrid.ts';
import { goldenIds, goldenModel } from '../support/models.ts';
import { TableModel } from '../support/table_model.ts';

const STATE_FLOATS = 25;

/** A table model whose snapshots are of a fixed size and hold which tokens they are of, and whose keys and values are a log of what was written. */
class RewindableTable extends TableModel {
  #written: number[] = [];

  override forward(tokens: readonly number[] | Int32Array): Float32Array {
    this.#written.splice(this.position, Infinity, ...tokens);
    return super.forward(tokens);
  }

  snapshot(): Snapshot {
    return { position: this.position, layers: [[new Float32Array(STATE_FLOATS).fill(hashOf(this.#written.slice(0, this.position)))]] };
  }

  restore({ position, layers }: Snapshot): void {
    const tokens = this.#written.slice(0, position);
    if (layers[0]![0]![0] !== hashOf(tokens)) throw new Error('the caches hold other tokens than those of the snapshot');
    super.reset();
    for (let at = 0; at < position; at += this.prefill_chunk) super.forward(tokens.slice(at, at + this.prefill_chunk));
  }
}

function hashOf(tokens: readonly number[]): number {
  return tokens.reduce((hash, id) => (hash * 31 + id + 1) % 65_521, 17);
}

const small = { vocab_size: 5, context: 60, prefill_chunk: 7 };
const BYTES = 4 * STATE_FLOATS;

interface Step {
  /** Tokens of the one before that the prompt begins with, and those that follow. */
  readonly shared: number;
  readonly rest: readonly number[];
  readonly mark: number;
  readonly keep: boolean;
}

const steps = fc.array(
  fc.record({
    shared: fc.nat(40),
    rest: fc.array(fc.nat(2), { minLength: 1, maxLength: 19 }),
    mark: fc.nat(50),
    keep: fc.boolean(),
  }),
  { minLength: 1, maxLength: 12 },
);

/** The rules, with whole prompts as the keys and the time of the last use beside each. */
class Naive {
  kept: { prefix: string; used: number }[] = [];
  #time = 0;
  readonly #room: number;

  constructor(room: number) {
    this.#room = room;
  }

  /** The longest one that a prompt begins with; those that the new text does not share are gone. */
  begin(live: readonly number[], prompt: readonly number[]): number {
    let shared = 0;
    while (shared < prompt.length - 1 && shared < live.length && live[shared] === prompt[shared]) shared++;
    if (shared === live.length) return shared;
    this.kept = this.kept.filter(({ prefix }) => prompt.slice(0, shared).join('').startsWith(prefix));
    const best = this.kept.toSorted((a, b) => b.prefix.length - a.prefix.length)[0];
    if (best) best.used = ++this.#time;
    return best?.prefix.length ?? 0;
  }

  take(prefix: string): void {
    if (prefix === '' || this.kept.some((one) => one.prefix === prefix)) return;
    this.kept.push({ prefix, used: ++this.#time });
    if (this.kept.length > this.#room) this.kept = this.kept.toSorted((a, b) => a.used - b.used).slice(-this.#room || Infinity);
  }

  get positions(): number[] {
    return this.kept.map(({ prefix }) => prefix.length).sort((a, b) => a - b);
  }
}

describe('against the rules, spelled out', () => {
  test('what is kept, what goes, what is run again, and the logits', () => {
    fc.assert(
      fc.property(steps, fc.integer({ min: 0, max: 5 }), fc.integer({ min: 3, max: 30 }), (all: readonly Step[], room, every) => {
        const checkpoints = new StateCheckpoints(new RewindableTable(small), { limit_bytes: room * BYTES + BYTES / 2, every });
        const naive = new Naive(room);
        let [live, latest]: [number[], number] = [[], 0];
        for (const { shared, rest, mark, keep } of all) {
          const prompt = [...live.slice(0, shared), ...rest].slice(0, small.context);
          const cached = checkpoints.begin(prompt, mark);
          expect(cached).toBe(naive.begin(live, prompt));
          expect(checkpoints.position).toBe(cached);
          expect(checkpoints.tokens).toEqual(prompt.slice(0, cached));
          if (cached < live.length) latest = cached;
          let logits: Float32Array | Float64Array = new Float32Array();
          for (let at = cached; at < prompt.length; ) {
            const end = Math.min(prompt.length, at + small.prefill_chunk);
            logits = checkpoints.forward(prompt.slice(at, end));
            for (const cut of at < mark && mark < end ? [mark, end] : [end]) {
              if (cut !== mark && cut - latest < every) continue;
              naive.take(prompt.slice(0, cut).join(''));
              latest = cut;
            }
            at = end;
          }
          if (keep) {
            checkpoints.keep();
            naive.take(prompt.join(''));
            latest = prompt.length;
          }
          live = prompt;
          const scratch = new TableModel({ ...small, prefill_chunk: 60 });
          expect(logits).toEqual(scratch.forward(prompt));
          expect(checkpoints.kept).toEqual({ positions: naive.positions, bytes: naive.kept.length * BYTES });
          expect(checkpoints.kept.bytes).toBeLessThanOrEqual(checkpoints.limit_bytes);
        }
      }),
      { numRuns: 300 },
    );
  });

  test('the distance between checkpoints grows with the context, so that half of the bytes hold a whole context', () => {
    const every = (context: number, limit_bytes: number) => new StateCheckpoints(new RewindableTable({ context }), { limit_bytes }).every;
    expect(every(4096, 2 ** 20)).toBe(512);
    expect(every(65_536, 64 * BYTES)).toBe(2048);
    expect(every(65_536, BYTES)).toBe(65_536);
  });

  test('a model that someone else drove is run from the beginning', () => {
    const model = new RewindableTable(small);
    const checkpoints = new StateCheckpoints(model);
    checkpoints.begin([1, 2, 3]);
    checkpoints.forward([1, 2, 3]);
    model.forward([4]);
    expect(checkpoints.begin([1, 2, 3, 4, 0])).toBe(0);
    expect(checkpoints.position).toBe(0);
  });

  test('after an error nothing is taken for known', () => {
    const model = new RewindableTable(small);
    const checkpoints = new StateCheckpoints(model);
    checkpoints.begin([1, 2, 3, 4]);
    checkpoints.forward([1, 2]);
    checkpoints.keep();
    const { forward } = model;
    model.forward = () => {
      throw new Error('a kernel trapped');
    };
    expect(() => checkpoints.forward([3])).toThrow('trapped');
    model.forward = forward;
    expect(checkpoints.begin([1, 2, 3, 4])).toBe(0);
    expect(checkpoints.kept).toEqual({ positions: [], bytes: 0 });
  });
});

describe.each([
  ['wasm', 'f32'],
  ['wasm', 'f16'],
  ['wasm', 'q8'],
  ['reference', 'f32'],
] as const)('%s, keys and values in %s', (kernels, kv) => {
  const load = async () => (await loadModel(goldenModel('rope'), { kernels, kv, prefill_chunk: 16 })).model;

  test('a state put back gives the bits of a run from the beginning, on the same text and on another from there', async () => {
    const ids = await goldenIds('rope');
    const [checkpoints, fresh] = [new StateCheckpoints(await load(), { every: 10 }), await load()];
    const run = (prompt: readonly number[], model: Pick<StateCheckpoints, 'forward' | 'position'>) => {
      let logits: ArrayLike<number> = [];
      while (model.position < prompt.length) logits = model.forward(prompt.slice(model.position, model.position + 16));
      return Array.from(logits);
    };
    const scratch = (prompt: readonly number[]) => {
      fresh.reset();
      return run(prompt, fresh);
    };
    checkpoints.begin(ids, 37);
    expect(run(ids, checkpoints)).toEqual(scratch(ids));
    fresh.reset();
    const bytes = fresh
      .snapshot()
      .layers.flat()
      .reduce((sum, { byteLength }) => sum + byteLength, 0);
    expect(checkpoints.kept.positions).toContain(37);
    expect(checkpoints.kept.bytes).toBe(checkpoints.kept.positions.length * bytes); // no keys and values in them
    for (const cut of [60, 50, 38, 20]) {
      const other = [...ids.slice(0, cut), 7, 5, 3, 2, ...ids.slice(cut, cut + 9)];
      expect(checkpoints.begin(other)).toBeGreaterThan(cut - 17);
      expect(run(other, checkpoints)).toEqual(scratch(other));
    }
    const position = checkpoints.begin(ids.slice(0, 21));
    expect(position).toBeGreaterThan(3);
    expect(run(ids.slice(0, 21), checkpoints)).toEqual(scratch(ids.slice(0, 21)));
  });

  test('a snapshot without keys and values has the size of the state alone, and is refused where they are gone', async () => {
    const ids = await goldenIds('rope');
    const model = await load();
    const bytes = ({ layers }: Snapshot) => layers.flat().reduce((sum, { byteLength }) => sum + byteLength, 0);
    const empty = bytes(model.snapshot());
    model.forward(ids.slice(0, 12));
    const state = model.snapshot({ kv: false });
    expect(bytes(state)).toBe(empty);
    expect(bytes(model.snapshot())).toBeGreaterThan(empty);
    model.reset();
    model.forward(ids.slice(0, 5));
    const before = model.snapshot();
    expect(() => model.restore(state)).toThrow('expected the keys and values of its 12 tokens in the caches, found those of 5');
    const wrong = before.layers.map((arrays) => arrays.map((array) => array.slice(1)));
    expect(() => model.restore({ ...before, layers: wrong })).toThrow(ArgumentError);
    const stateless = before.layers.map(() => []);
    expect(() => model.restore({ position: 3, layers: stateless })).toThrow(/arrays of [\d,]+ numbers for layer 0, found none/);
    expect(model.snapshot()).toEqual(before);
  });
});
