import { join } from 'node:path';
import { writeFile } from 'node:fs/promises';
import type { Dtype } from '../checkpoint/dtype.ts';
import { writeSafetensors } from '../checkpoint/safetensors_writer.ts';
import { kernelNames } from '../kernel_calls.ts';
import { packageFile } from '../package_files.ts';
import type { FloatArray } from '../runtime/tensor.ts';
import { type Golden, readGolden, tensorOf } from '../verify_golden.ts';
import { readAnswer } from './answer_file.ts';
import { ERROR_MEASURE, heldToTruth } from './error_bound.ts';
import { namesIn } from './fixtures.ts';
import { type Case, type Judgement, type Level, passed } from './protocol.ts';

const TRUTH = '.truth';

/** Single ops, on the inputs of the kernel goldens. */
export const opLevel: Level = {
  measure: ERROR_MEASURE,
  writes: true,
  async cases(folder) {
    const cases: Case[] = [];
    for (const op of kernelNames) {
      for (const file of await namesIn(`golden/kernels/${op}`)) {
        const golden = await readGolden(packageFile(`golden/kernels/${op}/${file}`));
        const inputs = join(folder, `${op}.${file}`);
        await writeInputs(inputs, golden);
        const params: unknown = JSON.parse(golden.metadata.get('params') ?? '{}');
        cases.push({
          request: { level: 'op', case: `${op}/${file.replace('.safetensors', '')}`, op, params, inputs },
          judge: async (_, output) => await judge(output, golden),
        });
      }
    }
    return cases;
  },
};

function outputsOf({ tensors }: Golden): string[] {
  return [...tensors.keys()].filter((name) => tensors.has(name + TRUTH) || name === 'state_after');
}

async function writeInputs(path: string, golden: Golden): Promise<void> {
  const outputs = outputsOf(golden);
  const inputs = [...golden.tensors].filter(([name]) => !name.endsWith(TRUTH) && !outputs.includes(name));
  const tensors = inputs.map(([name, { dtype, shape, bytes }]) => ({ name, dtype: dtype as Dtype, shape, data: bytes }));
  await writeFile(path, Buffer.concat(writeSafetensors(tensors)));
}

/** The worst of the op's outputs. */
async function judge(path: string, golden: Golden): Promise<Judgement> {
  let worst = passed(0);
  for (const name of outputsOf(golden)) {
    const { shape, data } = tensorOf(golden, name);
    const truth = tensorOf(golden, golden.tensors.has(name + TRUTH) ? name + TRUTH : name).data;
    const found = await readAnswer(path, [name], shape);
    const judgement = 'failure' in found ? found.failure : heldToTruth(name, found.values, data as FloatArray, truth as FloatArray);
    if (judgement.status !== 'passed') return judgement;
    if (judgement.measured! > worst.measured!) worst = judgement;
  }
  return worst;
}
