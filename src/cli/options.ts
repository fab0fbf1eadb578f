import type { Command } from 'commander';
import { ArgumentError } from '../errors.ts';
import type { KVOption, LoadOptions, WeightsOption } from '../load.ts';
import type { Mode } from '../runtime/bank.ts';

/** What the options of `addPlanOptions` become. */
export interface PlanFlags {
  readonly mode: Mode;
  readonly weights?: WeightsOption;
  readonly threads?: number;
  readonly kv?: KVOption;
}

/** What the options of `addEngineOptions` become. */
export interface EngineFlags extends PlanFlags {
  readonly kernels: NonNullable<LoadOptions['kernels']>;
  readonly prefillChunk?: number;
}

/** Adds the options that say how a model runs. */
export function addEngineOptions(command: Command, mode: Mode, prefillChunk = 256): Command {
  command.optionsGroup('Engine:');
  command.option(
    '--kernels <name>',
    'wasm (f32 SIMD), reference (float64, slow and exact) or bf16 (rounds as PyTorch does in bfloat16, slow)',
    oneOf('--kernels', ['wasm', 'reference', 'bf16']),
    'wasm',
  );
  addPlanOptions(command, mode);
  const chunk = `most tokens of one pass over the prompt (default: ${prefillChunk})`;
  return command.option('--prefill-chunk <n>', chunk, integer('--prefill-chunk', 1));
}

/** Adds those of them that say what memory it takes and which code runs. */
export function addPlanOptions(command: Command, mode: Mode): Command {
  return command
    .option(
      '--mode <name>',
      'strict (bits do not depend on the chunks of the prompt, nor on the machine) or fast (chunked delta rule, integer dots, relaxed SIMD)',
      oneOf('--mode', ['strict', 'fast']),
      mode,
    )
    .option(
      '--weights <format>',
      'matrices as f32, bf16, or in blocks of 32 as q8 or q4 (default: as stored)',
      oneOf('--weights', ['f32', 'bf16', 'q8', 'q4']),
    )
    .option('--threads <n>', 'threads that share each kernel (default: the physical cores)', integer('--threads', 1))
    .option(
      '--kv <format>',
      'keep keys and values in f32, f16 or q8 (default: f32, in fast mode f16)',
      oneOf('--kv', ['f32', 'f16', 'q8']),
    );
}

/** Adds `--model`. */
export function addModelOption(command: Command, otherwise = 'the embedded demo model'): Command {
  return command.option(
    '--model <model>',
    `folder with config.json and model.safetensors, or org/name[@revision] on the Hub (default: ${otherwise})`,
    named('--model'),
  );
}

/** A parser of an option's value. @throws {ArgumentError} when it is none of the names */
export function oneOf<T extends string>(flag: string, names: readonly T[]): (text: string) => T {
  return (text) => {
    const name = names.find((one) => one === text);
    if (name === undefined) throw mistaken(flag, names.join(' or '), text);
    return name;
  };
}

/** A parser of an option's value, of which messages say where something is. @throws {ArgumentError} when it is empty */
export function named(flag: string): (text: string) => string {
  return (text) => {
    if (text === '') throw mistaken(flag, 'a path or a name', text);
    return text;
  };
}

/** A parser of an option's value. @throws {ArgumentError} when it is not an integer of at least `least` */
export function integer(flag: string, least: number): (text: string) => number {
  return (text) => {
    const value = /^[+-]?\d+$/.test(text) ? Number(text) : Number.NaN;
    if (!Number.isSafeInteger(value) || value < least) throw mistaken(flag, `an integer of at least ${least}`, text);
    return value;
  };
}

/** A parser of an option's value. @throws {ArgumentError} when it is not a number */
export function number(flag: string): (text: string) => number {
  return (text) => {
    const value = text.trim() === '' ? Number.NaN : Number(text);
    if (!Number.isFinite(value)) throw mistaken(flag, 'a number', text);
    return value;
  };
}

/** A parser of an option's value. @throws {ArgumentError} when it is not an integer */
export function wideInteger(flag: string): (text: string) => number | bigint {
  return (text) => {
    if (!/^[+-]?\d+$/.test(text)) throw mistaken(flag, 'an integer', text);
    const value = Number(text);
    return Number.isSafeInteger(value) ? value : BigInt(text);
  };
}

function mistaken(flag: string, expected: string, text: string): ArgumentError {
  return new ArgumentError({ where: flag, expected, found: JSON.stringify(text), fix: `Give ${flag} another value.` });
}
