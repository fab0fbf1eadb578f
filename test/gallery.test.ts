import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, test } from 'vitest';
import { callKernel } from '../src/kernel_calls.ts';
import { referenceKernels } from '../src/reference/index.ts';
import { ReferenceBank } from '../src/runtime/reference_bank.ts';
import { checkKernel, functionAdapter, KernelFailure, lawsOf } from '../src/testing/index.ts';
import { KERNEL_MUTANTS } from './gallery/kernel_mutants.ts';
import type { Mutant } from './gallery/mutant.ts';
import { causeIsRight, type Exhibit, firstOpIsRight, page, REFERENCE_ERROR } from './gallery/page.ts';
import { rightError, runMutant } from './gallery/run.ts';
import { WIRING_MUTANTS } from './gallery/wiring_mutants.ts';
import { repository } from './support/models.ts';

const MUTANTS = [...KERNEL_MUTANTS, ...WIRING_MUTANTS];
const SEED = 20;
const RUNS = 50;
const folder = await mkdtemp(join(tmpdir(), 'olmo-hybrid-gallery-'));
afterAll(() => rm(folder, { recursive: true, force: true }));

/** Laws of its kernel that a mutant breaks, none for one of the wiring. */
async function brokenLaws({ kernel, kernels }: Mutant): Promise<Exhibit['broken']> {
  if (kernel === null) return null;
  const unused = () => {
    throw new Error('a kernel knows no config');
  };
  const mistaken = { ...referenceKernels, ...kernels!(referenceKernels, unused, undefined as never) };
  const adapter = functionAdapter((inputs, params) => callKernel(new ReferenceBank(1, mistaken), kernel, inputs, params), 'mutant');
  const failure: unknown = await checkKernel(kernel, adapter, { seed: SEED, runs: RUNS, shrink: false }).catch((error: unknown) => error);
  const laws = failure instanceof KernelFailure ? failure.broken.map(({ law }) => law) : [];
  return { laws, of: lawsOf(kernel).length };
}

const exhibits: Exhibit[] = [];
for (const mutant of MUTANTS) exhibits.push({ mutant, ...(await runMutant(mutant, folder)), broken: await brokenLaws(mutant) });

describe.each(exhibits.map((exhibit) => ({ name: exhibit.mutant.name, exhibit })))('$name', ({ exhibit }) => {
  const { mutant, diff, effect, broken } = exhibit;

  test('is killed: a kernel by the kit, wiring by the golden logits', () => {
    if (broken) expect(broken.laws).toContain('equals the float64 reference');
    else expect(effect.times_float32_error).toBeGreaterThan(100);
  });

  test('diff names its op', () => {
    expect(diff.outcome).toBe('diverged');
    expect(diff.first?.difference.name).toBe(mutant.op);
    expect(firstOpIsRight(exhibit)).toBe(true);
  });
});

test('diff names the cause of at least 80%', () => {
  const missed = exhibits.filter((exhibit) => !causeIsRight(exhibit)).map(({ mutant }) => mutant.name);
  expect(missed.length).toBeLessThanOrEqual(0.2 * MUTANTS.length);
  // Where it does not know, it says so.
  for (const { diff, mutant } of exhibits)
    expect(diff.first?.cause?.side ?? null, mutant.name).toBe(missed.includes(mutant.name) ? null : 'B');
});

// golden/mistakes.py makes these in the truth, in other words.
test('each mistake that the truth in Python makes as well moves the logits as far there', async () => {
  const figures = JSON.parse(await readFile(repository('golden/mistakes.json'), 'utf8')) as Record<string, Record<string, unknown>>;
  const twins = exhibits.filter(({ mutant }) => mutant.in_python !== undefined);
  expect(twins.map(({ mutant }) => mutant.in_python).sort()).toEqual(Object.keys(figures).sort());
  for (const { mutant, effect } of twins) {
    const figure = figures[mutant.in_python!]!;
    expect(figure['model'], mutant.name).toBe(mutant.model);
    expect(Number(effect.max_change.toPrecision(3)), mutant.name).toBe(figure['max_change']);
    expect(Number(effect.times_float32_error.toPrecision(3)), mutant.name).toBe(figure['times_float32_error']);
  }
});

test('every mistake of golden/release_mistakes.py is here, under this or another name', async () => {
  const source = await readFile(repository('golden/release_mistakes.py'), 'utf8');
  const names = [...source.slice(source.indexOf('MISTAKES = {')).matchAll(/^ {4}"([^"]+)":/gm)].map((match) => match[1]!);
  expect(names.length).toBeGreaterThan(30);
  const here = MUTANTS.map(({ name }) => name);
  expect(names.filter((name) => !here.includes(name))).toEqual(['padding_in_state']); // right_padding_in_state
});

test('docs/gallery.md is up to date: `npm run gallery` writes it', async () => {
  const errors = await Promise.all([...new Set(MUTANTS.map(({ model }) => model))].map((model) => rightError(model, folder)));
  expect(Math.max(...errors)).toBeLessThan(REFERENCE_ERROR);
  await expect(page(exhibits)).toMatchFileSnapshot(repository('docs/gallery.md'));
});
