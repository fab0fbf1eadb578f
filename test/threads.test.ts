import { execFile } from 'node:child_process';
import { readdirSync } from 'node:fs';
import { pathToFileURL } from 'node:url';
import { promisify } from 'node:util';
import { afterEach, describe, expect, test } from 'vitest';
import { RuntimeLimitError } from '../src/errors.ts';
import { loadModel, type LoadOptions } from '../src/load.ts';
import { embeddedModel } from '../src/package_files.ts';
import { ThreadPool } from '../src/runtime/thread_pool.ts';
import { physicalCores } from '../src/runtime/cores.ts';
import { kernelModule } from '../src/runtime/wasm_module.ts';
import { assertSame } from './support/assert_close.ts';
import { goldenIds, goldenModel, logitsOf, repository } from './support/models.ts';

/** Loads, uses and disposes. */
async function withModel<T>(
  dir: string,
  options: LoadOptions,
  use: (model: Awaited<ReturnType<typeof loadModel>>['model']) => T,
): Promise<T> {
  const { model, dispose } = await loadModel(dir, options);
  try {
    return await use(model);
  } finally {
    await dispose();
  }
}

// Strict mode on the golden models is in bits.test.ts.
describe('threads change no bit', () => {
  test.each(readdirSync(repository('golden/models')))('%s, fast', async (name) => {
    const ids = await goldenIds(name);
    const fast = (threads: number) => withModel(goldenModel(name), { threads, mode: 'fast' }, (model) => logitsOf(model, ids, 16));
    const alone = await fast(1);
    for (const threads of [2, 3]) assertSame(await fast(threads), alone);
  });

  test.each(['strict', 'fast'] as const)('the embedded model in every format, %s', async (mode) => {
    const ids = Array.from({ length: 70 }, (_, i) => (i * 397) % 4096);
    for (const weights of ['f32', 'bf16', 'q8', 'q4'] as const) {
      const run = (threads: number) => withModel(embeddedModel, { threads, mode, weights }, (model) => logitsOf(model, ids, 33));
      const alone = await run(1);
      for (const threads of [2, 3]) assertSame(await run(threads), alone);
    }
  });
});

const pools: ThreadPool[] = [];
afterEach(async () => {
  await Promise.all(pools.splice(0).map((pool) => pool.dispose()));
});

/** What a test breaks. */
interface Insides {
  readonly workers: { terminate(): Promise<number> }[];
  module: WebAssembly.Module;
}

/** A pool over one small memory; `add` shares y += x of so many floats. */
async function smallPool(threads: number) {
  const pool = await ThreadPool.create(threads);
  pools.push(pool);
  const { memory, run } = pool.addMemory(16, (thread) => 65536 + thread * 270_000);
  const add = (n: number, y = 4096, x = 32768) => run('add', n, 16, y, x);
  return { pool, memory, add, insides: pool as unknown as Insides };
}

describe('a pool', () => {
  test('computes with its workers, and alone once they are disposed of', async () => {
    const { pool, memory, add } = await smallPool(3);
    new Float32Array(memory.buffer, 32768, 1000).fill(1.5);
    const y = new Float32Array(memory.buffer, 4096, 1001);
    await pool.start();
    for (let i = 0; i < 2000; i++) add(1000);
    expect([y[0], y[517], y[999], y[1000]]).toEqual([3000, 3000, 3000, 0]);
    await pool.dispose();
    add(1000);
    expect([y[0], y[517], y[999], y[1000]]).toEqual([3001.5, 3001.5, 3001.5, 0]);
  });

  test('whose worker was killed refuses the next call', async () => {
    const { pool, add, insides } = await smallPool(2);
    await pool.start();
    add(1000);
    await insides.workers[0]!.terminate();
    expect(() => add(1000)).toThrow(RuntimeLimitError);
    expect(() => add(1000)).toThrow('threads: expected 2 at work, found a worker that has ended. Load the model again.');
  });

  test('whose worker is killed in the middle of calls goes on or refuses, and does not hang', async () => {
    const { pool, add, insides } = await smallPool(2);
    await pool.start();
    const killed = insides.workers[0]!.terminate(); // takes effect while the calls below run
    const refused = (() => {
      try {
        for (let i = 0; i < 20_000; i++) add(4096);
        return null;
      } catch (error) {
        return error;
      }
    })();
    if (refused !== null) expect(refused).toBeInstanceOf(RuntimeLimitError);
    await killed;
    expect(() => add(1000)).toThrow(RuntimeLimitError);
  });

  test('refuses when a kernel traps, and ever after', async () => {
    const { pool, add } = await smallPool(2);
    await pool.start();
    expect(() => add(1000, 16 * 65536)).toThrow('threads: expected 2 at work, found an error in add. Load the model again.');
    expect(() => add(1000)).toThrow(RuntimeLimitError);
  });

  test('says that a worker did not start', async () => {
    const { pool, insides } = await smallPool(3);
    insides.module = await kernelModule('strict', false); // takes no shared memory
    await expect(pool.start()).rejects.toThrow(/^threads: expected 3, found .*Use one thread\.$/);
    await expect(pool.start()).rejects.toThrow(RuntimeLimitError);
    expect(insides.workers).toHaveLength(0);
  });
});

test('a machine has at least one core', async () => {
  const cores = await physicalCores();
  expect(Number.isInteger(cores) && cores >= 1).toBe(true);
});

/** What the programs below print. */
interface Printed {
  readonly resources: string[];
  readonly more: number;
  readonly grown: number;
  readonly grown_bytes: number;
  readonly threads_grown: number;
}

/** What a program printed as JSON that imports the library as built; it has to end by itself. */
async function program(body: string, timeout = 55_000): Promise<Printed> {
  const library = JSON.stringify(pathToFileURL(repository('dist/index.js')).href);
  const source = `
    import { readdirSync, readFileSync } from 'node:fs';
    import { embeddedModel, generate, loadModel } from ${library};
    const tasks = () => { try { return readdirSync('/proc/self/task').length; } catch { return 0; } };
    const resources = () => process.getActiveResourcesInfo().filter((name) => !/Pipe|TTY|CloseReq/.test(name));
    ${body}`;
  const { stdout } = await promisify(execFile)(process.execPath, ['--expose-gc', '--input-type=module', '-e', source], { timeout });
  return JSON.parse(stdout) as Printed;
}

describe('a program', () => {
  test('ends by itself, whether it disposes of the model or not', async () => {
    const use = `
      const before = tasks();
      const { model, dispose } = await loadModel(embeddedModel, { threads: 3, mode: 'fast' });
      for await (const id of generate(model, [1, 2, 3], { max_tokens: 5, temperature: 0 })) void id;`;
    const disposing = await program(
      `${use} await dispose(); console.log(JSON.stringify({ resources: resources(), more: tasks() - before }));`,
    );
    expect(disposing.resources).toEqual([]);
    const forgetting = await program(`${use} console.log(JSON.stringify({ resources: resources(), more: tasks() - before }));`);
    expect(forgetting.resources).toEqual([]);
    if (process.platform === 'linux') expect(forgetting.more - disposing.more).toBe(2);
  });

  test('decodes 1000 tokens on a flat heap', async () => {
    const { grown } = await program(`
      const { model, dispose } = await loadModel(embeddedModel, { threads: 2, mode: 'fast', weights: 'q8' });
      const tokens = [7];
      const used = () => { gc(); return process.memoryUsage().heapUsed; };
      for (let i = 0; i < 200; i++) model.forward(tokens);
      // The engine's own notes of the code grow now and then; what a token leaves behind grows every time.
      let grown = Infinity;
      for (let round = 0; round < 3; round++) {
        model.reset();
        const before = used();
        for (let i = 0; i < 1000; i++) model.forward(tokens);
        grown = Math.min(grown, used() - before);
      }
      console.log(JSON.stringify({ grown }));
      await dispose();`);
    expect(grown).toBeLessThan(64 * 1024);
  });

  const cycles = Number(process.env['CYCLES'] ?? 30); // CYCLES=200 npx vitest run test/threads.test.ts
  test(
    'loads, generates and disposes again and again without growth',
    async () => {
      const { threads_grown, grown_bytes } = await program(
        `
      const cycle = async () => {
        const { model, dispose } = await loadModel(embeddedModel, { threads: 2, mode: 'fast', weights: 'q4', context: 64 });
        for await (const id of generate(model, [1, 2, 3], { max_tokens: 3, temperature: 0 })) void id;
        await dispose();
        gc();
      };
      const settled = async () => { await new Promise((resolve) => setTimeout(resolve, 200)); gc(); return process.memoryUsage().rss; };
      for (let i = 0; i < 10; i++) await cycle();
      const [rss, threads] = [await settled(), tasks()];
      for (let i = 0; i < ${cycles}; i++) await cycle();
      const after = await settled();
      console.log(JSON.stringify({ grown_bytes: after - rss, threads_grown: tasks() - threads }));`,
        50_000 + cycles * 1000,
      );
      console.log(`${cycles} cycles: ${(grown_bytes / 1e6).toFixed(1)} MB and ${threads_grown} threads more`);
      expect(threads_grown).toBeLessThanOrEqual(0);
      // A model takes 8 MB: one in ten that stayed would show.
      expect(grown_bytes).toBeLessThan(Math.max(10e6, cycles * 0.4e6));
    },
    60_000 + cycles * 1000,
  );
});
