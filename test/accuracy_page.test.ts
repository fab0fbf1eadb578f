import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { beforeAll, describe, expect, test } from 'vitest';
import { ThreadPool } from '../src/runtime/thread_pool.ts';
import { WasmBank } from '../src/runtime/wasm_bank.ts';
import { hasRelaxedSimd } from '../src/runtime/wasm_module.ts';
import { type Accuracy, verify } from '../src/verify.ts';
import { type Bf16Model, type Bf16Op, verifyBf16 } from '../src/verify_bf16.ts';
import { between, tablesOf } from './support/accuracy_page.ts';
import { repository } from './support/models.ts';

// UPDATE_PAGES=1 npx vitest run test/accuracy_page.test.ts writes the tables anew.
const PAGE = repository('docs/accuracy.md');
const TABLES = ['kernels', 'models', 'bf16_ops', 'bf16_models'];

const LAST_MODEL = readdirSync(repository('golden/models')).sort().at(-1);

/** Kernels and models; the embedded model, which comes after them, is not of this page. */
async function accuracies(mode: 'strict' | 'fast'): Promise<Accuracy[]> {
  const results: Accuracy[] = [];
  for await (const result of verify({ mode })) {
    results.push(result as Accuracy);
    if (result.kind === 'model' && result.name === LAST_MODEL) break;
  }
  return results;
}

/** Whether the relaxed build runs here and rounds once where strict mode rounds twice: relaxed SIMD leaves that to the machine. */
async function fuses(): Promise<boolean> {
  if (!(await hasRelaxedSimd())) return false;
  const pool = await ThreadPool.create(1, 'relaxed');
  const bank = new WasmBank(pool, 1, 'fast', { persistent: 2 ** 16, scratch: 0 });
  const a = 1 + 2 ** -12; // its square needs 25 bits
  const [x, w, y] = [bank.tensor(1, 2), bank.matrix(1, 2, 'F32'), bank.tensor(1, 1)];
  x.data.set([1, a]);
  new Float32Array(bank.staging.buffer, bank.staging.byteOffset, 2).set([-1 - 2 ** -11, a]);
  bank.storeRows(w, 'F32', 0, 1);
  bank.kernels.linear(y, x, w, null);
  await pool.dispose();
  return y.data[0] === 2 ** -24;
}

async function bf16(): Promise<(Bf16Op | Bf16Model)[]> {
  const results: (Bf16Op | Bf16Model)[] = [];
  for await (const result of verifyBf16()) results.push(result);
  return results;
}

describe('docs/accuracy.md', async () => {
  let tables: Record<string, string> = {};

  beforeAll(async () => {
    tables = tablesOf({ strict: await accuracies('strict'), bf16: await bf16() });
    if (process.env['UPDATE_PAGES'] === undefined) return;
    let page = readFileSync(PAGE, 'utf8');
    for (const [name, text] of Object.entries(tables)) {
      page = page.replace(`<!-- ${name} -->\n${between(page, name)}`, () => `<!-- ${name} -->\n${text}`);
    }
    writeFileSync(PAGE, page);
  });

  test.each(TABLES)('the table of %s says what verify finds', (name) => {
    expect(between(readFileSync(PAGE, 'utf8'), name)).toBe(tables[name]);
  });

  const cells = (row: string) => row.split(' | ').map((cell) => cell.replaceAll(/[| \n]/g, ''));
  const summary = (of: Record<string, string>) => {
    const last = (name: string, back: number) => cells(of[name]!.trimEnd().split('\n').at(-back)!);
    const [, , kernel_median, kernel_largest] = last('kernels', 1);
    return { kernel_median, kernel_largest, medians: last('models', 2), largest: last('models', 1) };
  };

  test('README.md has the same medians and extremes', () => {
    const readme = readFileSync(repository('README.md'), 'utf8');
    const { kernel_median, kernel_largest, medians, largest } = summary(tables);
    expect(readme).toContain(`| kernels, strict | 74 | ${kernel_median} | ${kernel_largest} |`);
    expect(readme).toContain(`| models' logits, strict | 28 | ${medians[3]} | ${largest[3]} |`);
  });

  test.runIf(await fuses())('README.md has those of fast mode, where products and sums are fused', async () => {
    const readme = readFileSync(repository('README.md'), 'utf8');
    const fast = tablesOf({ strict: await accuracies('fast'), bf16: [] });
    const { kernel_median, kernel_largest, medians, largest } = summary(fast);
    expect(readme).toContain(`| kernels, fast | 74 | ${kernel_median} | ${kernel_largest} |`);
    expect(readme).toContain(`| models' logits, fast, keys and values in f32 | 28 | ${medians[3]} | ${largest[3]} |`);
  });
});
