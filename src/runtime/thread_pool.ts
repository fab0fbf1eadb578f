import { RuntimeLimitError } from '../errors.ts';
import {
  ASLEEP,
  CALL,
  CommandBlock,
  COUNT,
  DONE,
  ENDED,
  FAILED,
  GRAIN,
  GRAINS,
  KERNEL,
  KernelRunner,
  LEFT,
  MEMORY,
  STATE,
  WAITING,
} from './command_block.ts';
import { type Build, hasWideVectors, type KernelExports, kernelModule, WASM_KERNELS, type WasmKernelName } from './wasm_module.ts';
import type { WorkerNews, WorkerStart } from './worker.ts';

// A page may not sleep on its own thread; there the caller looks until the workers are done.
const MAY_SLEEP = typeof document === 'undefined';
/** Times that the caller looks whether the workers are done before it sleeps. */
const LOOKS = 1 << 16;
/** A worker that gives no sign of life for so long is taken for dead: no part of a kernel takes a tenth of it. */
const SIGN_OF_LIFE_MS = 1000;
const MISSED_SIGNS = 10;

// Right from src/ in tests and from dist/ in the package.
const url = new URL('../../dist/runtime/worker.js', import.meta.url);

/** What Node's workers and those of a page have in common. */
interface Thread {
  postMessage(start: WorkerStart): void;
  terminate(): unknown;
}

/** Runs `kernel` for outputs [0, count), whole grains of `grain` of them in a thread at a time. The a's are its arguments before the range. */
export type RunKernel = (
  kernel: WasmKernelName,
  count: number,
  grain: number,
  a0: number,
  a1: number,
  a2?: number,
  a3?: number,
  a4?: number,
  a5?: number,
  a6?: number,
  a7?: number,
  a8?: number,
  a9?: number,
  a10?: number,
  a11?: number,
  a12?: number,
  a13?: number,
) => void;

const INDEX = Object.fromEntries(WASM_KERNELS.map((name, i) => [name, i])) as Record<WasmKernelName, number>;

/**
 * The threads that share each kernel call: the calling one and workers that have the same kernels over the same memories. Outputs are split,
 * never sums, so the number of threads changes no bit. A thread takes outputs when it is done with those before: a core that is busy with
 * something else takes fewer.
 *
 * Memories are added first, then `start` makes the workers. With one thread there are none, and nothing is shared.
 */
export class ThreadPool {
  readonly threads: number;
  private readonly module: WebAssembly.Module;
  private readonly block: CommandBlock | null;
  private readonly runner: KernelRunner;
  private readonly memories: WebAssembly.Memory[] = [];
  private readonly scratch: ((thread: number) => number)[] = [];
  private workers: Thread[] = [];
  private failure: string | null = null;

  private constructor(threads: number, module: WebAssembly.Module) {
    this.threads = threads;
    this.module = module;
    this.runner = new KernelRunner(threads);
    this.block = threads > 1 ? new CommandBlock() : null;
  }

  /**
   * @param threads The calling thread counts as one.
   * @throws {RuntimeLimitError} when the engine has no WebAssembly SIMD, or no shared memory and `threads` is more than one.
   */
  static async create(threads: number, build: Build = 'strict'): Promise<ThreadPool> {
    if (threads > 1 && typeof SharedArrayBuffer === 'undefined') {
      throw new RuntimeLimitError({
        where: 'threads',
        expected: 'a page that is cross-origin isolated',
        found: 'no SharedArrayBuffer',
        fix: 'Serve the page with Cross-Origin-Opener-Policy: same-origin and Cross-Origin-Embedder-Policy: require-corp, or use one thread.',
      });
    }
    return new ThreadPool(threads, await kernelModule(build, threads > 1));
  }

  /**
   * A memory of `pages` fixed pages. Workers see those that were added before `start`.
   * @param scratch Address of each thread's scratch.
   * @throws {RangeError} when the engine cannot give that much memory
   */
  addMemory(pages: number, scratch: (thread: number) => number): { memory: WebAssembly.Memory; core: KernelExports; run: RunKernel } {
    const memory = new WebAssembly.Memory({ initial: pages, maximum: pages, shared: this.threads > 1 });
    const core = new WebAssembly.Instance(this.module, { env: { memory } }).exports as KernelExports;
    core.set_scratch(scratch(0));
    core.set_wide(Number(hasWideVectors()));
    const index = this.memories.push(memory) - 1;
    this.scratch.push(scratch);
    this.runner.add(core);
    const { args } = this.runner;
    const run: RunKernel = (
      kernel,
      count,
      grain,
      a0,
      a1,
      a2 = 0,
      a3 = 0,
      a4 = 0,
      a5 = 0,
      a6 = 0,
      a7 = 0,
      a8 = 0,
      a9 = 0,
      a10 = 0,
      a11 = 0,
      a12 = 0,
      a13 = 0,
    ) => {
      args[0] = a0;
      args[1] = a1;
      args[2] = a2;
      args[3] = a3;
      args[4] = a4;
      args[5] = a5;
      args[6] = a6;
      args[7] = a7;
      args[8] = a8;
      args[9] = a9;
      args[10] = a10;
      args[11] = a11;
      args[12] = a12;
      args[13] = a13;
      if (this.workers.length === 0 || count <= grain) this.runner.run(index, INDEX[kernel], 0, count);
      else this.runOnAll(index, INDEX[kernel], count, grain);
    };
    return { memory, core, run };
  }

  /** Starts the workers. @throws {RuntimeLimitError} when one of them does not */
  async start(): Promise<void> {
    const [module, memories, block] = [this.module, this.memories, this.block];
    if (!block || this.workers.length > 0) return;
    const started = Array.from({ length: this.threads - 1 }, async (_, i) => {
      const scratch = this.scratch.map((of) => of(i + 1));
      await this.startWorker({ threads: this.threads, module, wide: hasWideVectors(), block: block.buffer, memories, scratch });
    });
    // All are waited for: one that starts after another has failed is ended as well.
    const failed = (await Promise.allSettled(started)).find((result) => result.status === 'rejected');
    if (failed) {
      await this.dispose();
      const cause: unknown = failed.reason;
      const found = cause instanceof Error ? cause.message : String(cause);
      throw new RuntimeLimitError({ where: 'threads', expected: `${this.threads}`, found, fix: 'Use one thread.' }, { cause });
    }
  }

  /** Ends the workers. The kernels then run on the calling thread alone. */
  async dispose(): Promise<void> {
    const workers = this.workers;
    this.workers = [];
    if (!this.block) return;
    Atomics.store(this.block.words, STATE, ENDED);
    Atomics.store(this.block.words, LEFT, 1);
    Atomics.notify(this.block.words, LEFT);
    await Promise.all(workers.map((worker) => worker.terminate()));
  }

  private async startWorker(start: WorkerStart): Promise<void> {
    const ended = (why: string) => {
      this.failure ??= why;
    };
    await new Promise<void>((resolve, reject) => {
      const heard = (news: WorkerNews) => {
        if (news === 'ready') resolve();
        else ended(news.failed);
      };
      void newThread(heard, (why) => {
        ended(why);
        reject(new Error(why));
      }).then((worker) => {
        this.workers.push(worker);
        worker.postMessage(start);
      }, reject);
    });
  }

  private runOnAll(memory: number, kernel: number, count: number, grain: number): void {
    if (this.failure !== null) throw this.broken(this.failure);
    const block = this.block!;
    const { words } = block;
    const grains = Math.ceil(count / grain);
    block.args.set(this.runner.args);
    words[CALL] = words[CALL]! + 1;
    words[KERNEL] = kernel;
    words[MEMORY] = memory;
    words[COUNT] = count;
    words[GRAIN] = grain;
    words[GRAINS] = grains;
    Atomics.store(words, DONE, 0);
    Atomics.store(words, LEFT, grains);
    if (Atomics.load(words, ASLEEP) > 0) Atomics.notify(words, LEFT);
    const own = this.ownShare(block, kernel);
    this.waitFor(words, grains - own);
    if (Atomics.load(words, STATE) === FAILED) throw this.broken(`an error in ${WASM_KERNELS[kernel]}`);
  }

  /** A mistake here is one of the pool: workers may still hold parts of the call. */
  private ownShare(block: CommandBlock, kernel: number): number {
    try {
      return this.runner.share(block, false);
    } catch (cause) {
      throw this.broken(`an error in ${WASM_KERNELS[kernel]}`, cause);
    }
  }

  /** Waits until the workers are done with so many grains. */
  private waitFor(words: Int32Array, grains: number): void {
    for (let i = 0; i < LOOKS; i++) if (Atomics.load(words, DONE) === grains) return;
    Atomics.store(words, WAITING, 1);
    for (let missed = 0; missed < MISSED_SIGNS; ) {
      const done = Atomics.load(words, DONE);
      if (done === grains || Atomics.load(words, STATE) === FAILED) break;
      if (wait(words, done)) missed = 0;
      else missed++;
      if (missed === MISSED_SIGNS) throw this.broken('a worker that does not answer');
    }
    Atomics.store(words, WAITING, 0);
  }

  private broken(found: string, cause?: unknown): RuntimeLimitError {
    this.failure ??= found;
    const problem = { where: 'threads', expected: `${this.threads} at work`, found, fix: 'Load the model again.' };
    return new RuntimeLimitError(problem, { cause });
  }
}

/** Waits for DONE to change from `done`, for a time. @returns whether it has */
function wait(words: Int32Array, done: number): boolean {
  if (MAY_SLEEP) return Atomics.wait(words, DONE, done, SIGN_OF_LIFE_MS) !== 'timed-out';
  for (const until = performance.now() + SIGN_OF_LIFE_MS; performance.now() < until; ) {
    for (let i = 0; i < LOOKS; i++) if (Atomics.load(words, DONE) !== done || Atomics.load(words, STATE) === FAILED) return true;
  }
  return false;
}

async function newThread(heard: (news: WorkerNews) => void, ended: (why: string) => void): Promise<Thread> {
  if (typeof process === 'undefined') {
    const worker = new Worker(new URL('../../dist/runtime/worker.js', import.meta.url), { type: 'module' });
    worker.onmessage = ({ data }: MessageEvent<WorkerNews>) => heard(data);
    worker.onerror = ({ message }) => ended(message);
    return worker;
  }
  const { Worker: NodeWorker } = await import('node:worker_threads');
  const worker = new NodeWorker(url, { execArgv: [] }); // a worker refuses some of the options that a program is started with
  worker.on('message', (news: WorkerNews) => {
    if (news === 'ready') worker.unref(); // a model that was not disposed of keeps no process alive; a listener added later would
    heard(news);
  });
  worker.on('error', (error) => ended(String(error)));
  worker.on('exit', () => ended('a worker that has ended'));
  const terminate = () => {
    worker.ref(); // a process that waits for its end must not end before: Node 24 would
    return worker.terminate();
  };
  return { postMessage: (start) => worker.postMessage(start), terminate };
}
