import type { FileHandle } from 'node:fs/promises';
import type { Command } from 'commander';
import { writeAtomically } from '../atomic_file.ts';
import { ArgumentError } from '../errors.ts';
import { readConfig } from '../load.ts';
import type { OlmoHybridForCausalLM } from '../model/olmo_hybrid.ts';
import { readTokenIds } from './input_file.ts';
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
  const ids = await readTokenIds(flags.tokens, config.vocab_size);
  if (ids.length > config.max_position_embeddings) {
    const expected = `at most ${config.max_position_embeddings} token ids, the model's max_position_embeddings`;
    throw new ArgumentError({ where: flags.tokens, expected, found: `${ids.length}`, fix: 'Shorten the list.' });
  }

  const begin = performance.now();
  const complete = await writeAtomically(flags.output, async (file) => {
    const { model, dispose } = await load(dir, ids.length, flags, signal);
    const metadata = { producer: `olmo-hybrid ${version}`, kernels: flags.kernels, mode: flags.mode };
    await file.writeFile(header([ids.length, config.vocab_size], metadata));
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

/** The header of a safetensors file with one tensor. */
function header(shape: readonly [number, number], metadata: Readonly<Record<string, string>>): Uint8Array {
  const logits = { dtype: 'F32', shape, data_offsets: [0, shape[0] * shape[1] * 4] };
  const json = JSON.stringify({ __metadata__: metadata, logits });
  const length = Math.ceil(json.length / 8) * 8;
  const bytes = Buffer.alloc(8 + length, ' ');
  bytes.writeBigUInt64LE(BigInt(length));
  bytes.write(json, 8);
  return bytes;
}
