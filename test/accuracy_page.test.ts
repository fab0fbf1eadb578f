import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { beforeAll, describe, expect, test } from 'vitest';
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

async function bf16(): Promise<(Bf16Op | Bf16Model)[]> {
  const results: (Bf16Op | Bf16Model)[] = [];
  for await (const result of verifyBf16()) results.push(result);
  return results;
}

describe('docs/accuracy.md', () => {
  let tables: Record<string, string> = {};

  beforeAll(async () => {
    tables = tablesOf({ strict: await accuracies('strict'), fast: await accuracies('fast'), bf16: await bf16() });
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

  test('README.md has the same medians and extremes', () => {
    const readme = readFileSync(repository('README.md'), 'utf8');
    const cells = (row: string) => row.split(' | ').map((cell) => cell.replaceAll(/[| \n]/g, ''));
    const last = (name: string, back: number) => cells(tables[name]!.trimEnd().split('\n').at(-back)!);
    const [, , kernel_median, kernel_largest] = last('kernels', 1);
    const [medians, largest] = [last('models', 2), last('models', 1)];
    expect(readme).toContain(`| kernels, strict | 74 | ${kernel_median} | ${kernel_largest} |`);
    expect(readme).toContain(`| models' logits, strict | 28 | ${medians[3]} | ${largest[3]} |`);
    expect(readme).toContain(`| models' logits, fast | 28 | ${medians[6]} | ${largest[6]} |`);
  });
});
