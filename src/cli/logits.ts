import type { FileHandle } from 'node:fs/promises';
import type { Command } from 'commander';
import { writeAtomically } from '../atomic_file.ts';
import { safetensorsHeader } from '../checkpoint/safetensors_writer.ts';
import { readConfig } from '../load.ts';
import type { OlmoHybridForCausalLM } from '../model/olmo_hybrid.ts';
import { readPassTokenIds } from './input_file.ts';
import { load } from './loading.ts';
import { modelFolder } from './model_folder.ts';
import { addEngineOptions, addModelOption, type EngineFlags, named } from './options.ts';
import { checkOutput } from './output_file.ts';
import { duration, interruptedCode, interruption, note } from './terminal.ts';
import { version } from './version.ts';

interface Flags extends EngineFlags {
  readonly model?: string;
  readonly tokens: string;
  readonly output: string;
}

export function addLogits(program: Command): void {
  const command = program.command('logits').description('write the logits of every token of a text');
  addModelOption(command)
    .requiredOption('--tokens <file>', 'JSON array of token ids')
    .requiredOption('--output <file>', 'safetensors file to write: logits, F32 [tokens, vocab_size]', named('--output'));
  addEngineOptions(command, 'strict').action(run);
}

async function run(flags: Flags): Promise<void> {
  const signal = interruption();
  await checkOutput('--output', flags.output, [flags.tokens, flags.model]);
  const dir = await modelFolder(flags.model, { weights: flags.weights, signal });
  const config = await readConfig(dir);
  const ids = await readPassTokenIds(flags.tokens, config);

  const begin = performance.now();
  const complete = await writeAtomically(flags.output, async (file) => {
    const { model, dispose } = await load(dir, ids.length, flags, signal);
    const logits = { name: 'logits', dtype: 'F32', shape: [ids.length, config.vocab_size] } as const;
    const metadata = { producer: `olmo-hybrid ${version}`, kernels: flags.kernels, mode: flags.mode };
    await file.writeFile(safetensorsHeader([logits], new Map(Object.entries(metadata))));
    return await writeLogits(file, model, ids, signal).finally(dispose);
  });
  if (!complete) {
    process.exitCode = interruptedCode();
    return;
  }
  note(`${flags.output}: logits F32 [${ids.length}, ${config.vocab_size}] in ${duration((performance.now() - begin) / 1000)}`);
}

/** Writes the rows chunk by chunk: those of a long text would take gigabytes. Returns false when it was interrupted. */
async function writeLogits(file: FileHandle, model: OlmoHybridForCausalLM, ids: readonly number[], signal: AbortSignal): Promise<boolean> {
  const V = model.config.vocab_size;
  const rows = new Float32Array(model.prefill_chunk * V);
  for (let begin = 0; begin < ids.length; begin += model.prefill_chunk) {
    const chunk = ids.slice(begin, begin + model.prefill_chunk);
    model.forwardAll(chunk, rows);
    await file.writeFile(new Uint8Array(rows.buffer, 0, chunk.length * V * 4));
    if (signal.aborted) return false;
  }
  return true;
}
