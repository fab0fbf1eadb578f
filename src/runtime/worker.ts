import { ASLEEP, CommandBlock, DONE, FAILED, KernelRunner, LEFT, STATE } from './command_block.ts';
import type { KernelExports } from './wasm_module.ts';

/** What a worker gets once, at its start. */
export interface WorkerStart {
  /** Threads of the pool, this one and the calling one included. */
  readonly threads: number;
  readonly module: WebAssembly.Module;
  /** hasWideVectors of the thread that compiled it. */
  readonly wide: boolean;
  readonly block: SharedArrayBuffer;
  readonly memories: readonly WebAssembly.Memory[];
  /** For each memory, the address of this thread's scratch. */
  readonly scratch: readonly number[];
}

/** What a worker says: that it is ready, or why it ended. */
export type WorkerNews = 'ready' | { readonly failed: string };

/** How long a worker looks for the next call before it sleeps: longer than the calling thread takes between two kernels. */
const PATIENCE_MS = 2;

/** Takes part in the calls of a pool until it ends. @param tell where news go; after a failure the pool is of no use */
function work({ threads, module, wide, block: buffer, memories, scratch }: WorkerStart, tell: (news: WorkerNews) => void): void {
  const block = new CommandBlock(buffer);
  const { words } = block;
  const runner = new KernelRunner(threads);
  memories.forEach((memory, i) => {
    const core = new WebAssembly.Instance(module, { env: { memory } }).exports as KernelExports;
    core.set_scratch(scratch[i]!);
    core.set_wide(Number(wide));
    runner.add(core);
  });
  tell('ready');
  for (;;) {
    waitForParts(words);
    if (Atomics.load(words, STATE) !== 0) return;
    try {
      runner.share(block, true);
    } catch (error) {
      tell({ failed: String(error) });
      Atomics.store(words, STATE, FAILED);
      Atomics.notify(words, DONE);
    }
  }
}

function waitForParts(words: Int32Array): void {
  const patience = performance.now() + PATIENCE_MS;
  for (;;) {
    for (let i = 0; i < 1000; i++) if (Atomics.load(words, LEFT) > 0) return;
    if (performance.now() < patience) continue;
    Atomics.add(words, ASLEEP, 1);
    const left = Atomics.load(words, LEFT);
    if (left < 1) Atomics.wait(words, LEFT, left); // returns at once if a call has come in the meantime
    Atomics.sub(words, ASLEEP, 1);
  }
}

// Node's workers and those of pages differ in how they get messages.
if (typeof process === 'undefined') {
  self.onmessage = ({ data }: MessageEvent<WorkerStart>) => work(data, (news) => self.postMessage(news));
} else {
  const { parentPort } = await import('node:worker_threads');
  parentPort?.once('message', (start: WorkerStart) => work(start, (news) => parentPort.postMessage(news)));
}
