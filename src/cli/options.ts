import type { Command } from 'commander';
import { ArgumentError } from '../errors.ts';
import type { LoadOptions } from '../load.ts';
import type { Mode } from '../runtime/bank.ts';

/** What the options of `addEngineOptions` become. */
export interface EngineFlags {
  readonly kernels: NonNullable<LoadOptions['kernels']>;
  readonly mode: Mode;
  readonly prefillChunk?: number;
}

/** Adds the options that say how a model runs. */
export function addEngineOptions(command: Command, mode: Mode): Command {
  return command
    .optionsGroup('Engine:')
    .option(
      '--kernels <name>',
      'wasm (f32 SIMD), reference (float64, slow and exact) or bf16 (rounds as PyTorch does in bfloat16, slow)',
      oneOf('--kernels', ['wasm', 'reference', 'bf16']),
      'wasm',
    )
    .option(
      '--mode <name>',
      'strict (bits do not depend on the chunks of the prompt) or fast (chunked delta rule)',
      oneOf('--mode', ['strict', 'fast']),
      mode,
    )
    .option('--prefill-chunk <n>', 'most tokens of one pass over the prompt (default: 256)', integer('--prefill-chunk', 1));
}

/** Adds `--model`. */
export function addModelOption(command: Command, otherwise = 'the embedded demo model'): Command {
  return command.option('--model <dir>', `folder with config.json and model.safetensors (default: ${otherwise})`);
}

/** A parser of an option's value. @throws {ArgumentError} when it is none of the names */
export function oneOf<T extends string>(flag: string, names: readonly T[]): (text: string) => T {
  return (text) => {
    const name = names.find((one) => one === text);
    if (name === undefined) throw mistaken(flag, names.join(' or '), text);
    return name;
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
