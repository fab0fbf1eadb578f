import { type KernelExports, WASM_KERNELS } from './wasm_module.ts';

// Words of the block, each that several threads write to on a cache line of its own.
/** Grains of the running call that no thread has taken yet. Workers sleep on it. */
export const LEFT = 0;
/** Grains that workers are done with. The caller sleeps on it. */
export const DONE = 16;
/** Workers that sleep. */
export const ASLEEP = 32;
/** 1 while the caller sleeps. */
export const WAITING = 56;
/** FAILED or ENDED. */
export const STATE = 48;
export const [FAILED, ENDED] = [1, 2];
/** Number of the call and what to run: index into WASM_KERNELS, index of the memory, outputs in all, outputs of a grain, grains. */
export const [CALL, KERNEL, MEMORY, COUNT, GRAIN, GRAINS] = [80, 81, 82, 83, 84, 85];
const WORDS = 96;
/** Most numbers that a kernel takes, its range included. */
const ARGUMENTS = 16;
/**
 * What a thread takes at a time, as a share of its fair part: at first of the whole call, then of what is left. A part begins a new stream through
 * memory, which costs more than a microsecond: so the first part is nearly all, and the last ones a grain, so that a slow core holds nobody up.
 */
const SHARE = 0.95;

/** A call of a kernel that several threads share: the kernel, its arguments, and how far it is. */
export class CommandBlock {
  readonly buffer: SharedArrayBuffer;
  readonly words: Int32Array;
  /** The kernel's arguments without its range; addresses above 2 GiB and f64 scalars are exact. */
  readonly args: Float64Array;

  constructor(buffer = new SharedArrayBuffer(WORDS * 4 + ARGUMENTS * 8)) {
    this.buffer = buffer;
    this.words = new Int32Array(buffer, 0, WORDS);
    this.args = new Float64Array(buffer, WORDS * 4, ARGUMENTS);
  }
}

/** One thread's kernels over every memory, and the arguments of the call that it takes part in. */
export class KernelRunner {
  /** SHARE for one of the threads. */
  private readonly own_share: number;
  readonly args = new Float64Array(ARGUMENTS);
  /** Of which call `args` are. */
  private call = 0;
  /** For each memory, for each kernel. */
  private readonly kernels: ((...args: number[]) => number)[][] = [];

  constructor(threads: number) {
    this.own_share = SHARE / threads;
  }

  add(core: KernelExports): void {
    this.kernels.push(WASM_KERNELS.map((name) => core[name]));
  }

  /** Runs outputs [begin, end) of a kernel with the arguments in `args`; its last two parameters are the range. */
  run(memory: number, kernel: number, begin: number, end: number): void {
    const call = this.kernels[memory]![kernel]!;
    const a = this.args;
    const range = call.length - 2;
    a[range] = begin;
    a[range + 1] = end;
    // One call for all: WebAssembly passes over arguments that a function does not have. Spreading would allocate.
    call(a[0]!, a[1]!, a[2]!, a[3]!, a[4]!, a[5]!, a[6]!, a[7]!, a[8]!, a[9]!, a[10]!, a[11]!, a[12]!, a[13]!, a[14]!, a[15]!);
  }

  /**
   * Takes parts of the block's call, one after the other, until none is left. A thread that holds a part holds the call: what the block says cannot
   * change until the part is done. So nobody waits for a thread that comes late, and it may come in the middle of the next call.
   * @param report whether to count them in the block, as workers do
   * @returns how many grains it took
   */
  share({ words, args }: CommandBlock, report: boolean): number {
    for (let taken = 0; ; ) {
      const left = Atomics.load(words, LEFT);
      if (left < 1) return taken;
      // The first part is smaller for who comes so late that others have taken more than theirs.
      const first = Math.ceil(words[GRAINS]! * this.own_share);
      const part = words[CALL] !== this.call && first <= left ? first : Math.ceil(left * this.own_share);
      if (Atomics.compareExchange(words, LEFT, left, left - part) !== left) continue;
      if (words[CALL] !== this.call) {
        this.args.set(args);
        this.call = words[CALL]!;
      }
      const begin = (words[GRAINS]! - left) * words[GRAIN]!;
      this.run(words[MEMORY]!, words[KERNEL]!, begin, Math.min(begin + part * words[GRAIN]!, words[COUNT]!));
      taken += part;
      if (!report) continue;
      Atomics.add(words, DONE, part);
      if (Atomics.load(words, WAITING) !== 0) Atomics.notify(words, DONE);
    }
  }
}
