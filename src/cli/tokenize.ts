import type { Command } from 'commander';
import { ArgumentError, OlmoHybridError, type Problem } from '../errors.ts';
import { modelFolder } from './model_folder.ts';
import { Tokenizer } from '../tokenizer.ts';
import { checkEach, readJsonArray } from './input_file.ts';
import { addModelOption } from './options.ts';
import { interruption, withoutInterruption } from './terminal.ts';

interface Flags {
  readonly model?: string;
  readonly input: string;
  readonly json?: true;
}

export function addTokenize(program: Command): void {
  const command = program.command('tokenize').description('turn texts into token ids, with no special tokens added');
  addModelOption(command)
    .requiredOption('--input <file>', 'JSON array of texts')
    .option('--json', 'print a JSON array of arrays of ids instead of a line of ids for each text')
    .action(async ({ model, input, json }: Flags) => {
      const tokenizer = await Tokenizer.fromFolder(await modelFolder(model, { need: 'text', signal: interruption() }));
      const texts = await readJsonArray(input, 'texts');
      checkEach(input, texts, (text) => typeof text === 'string', 'a text', 'Put every text in quotes.');
      const ids = await withoutInterruption(() => mapEach(input, texts as string[], (text) => tokenizer.encode(text)));
      process.stdout.write(json ? `${JSON.stringify(ids)}\n` : ids.map((line) => `${line.join(' ')}\n`).join(''));
    });
}

export function addDetokenize(program: Command): void {
  const command = program.command('detokenize').description('turn token ids into texts, with no special tokens left out');
  addModelOption(command)
    .requiredOption('--input <file>', 'JSON array of arrays of ids')
    .option('--json', 'print a JSON array of texts instead of one text after the other')
    .action(async ({ model, input, json }: Flags) => {
      const tokenizer = await Tokenizer.fromFolder(await modelFolder(model, { need: 'text', signal: interruption() }));
      const ids = await readJsonArray(input, 'arrays of token ids');
      const isIds = (value: unknown) => Array.isArray(value) && value.every(Number.isSafeInteger);
      checkEach(input, ids, isIds, 'an array of token ids', 'Give one array of integers for each text.');
      const texts = await withoutInterruption(() => mapEach(input, ids as number[][], (one) => tokenizer.decode(one)));
      process.stdout.write(json ? `${JSON.stringify(texts)}\n` : texts.map((text) => `${text}\n`).join(''));
    });
}

/** Maps the elements of an array from a file; errors say which element they are about. */
function mapEach<From, To>(path: string, elements: readonly From[], map: (element: From) => To): To[] {
  const problems: Problem[] = [];
  const mapped = elements.flatMap((element, i) => {
    try {
      return [map(element)];
    } catch (error) {
      if (!(error instanceof OlmoHybridError)) throw error;
      for (const problem of error.problems) problems.push({ ...problem, where: `${path}: [${i}]` });
      return [];
    }
  });
  if (problems.length > 0) throw new ArgumentError(problems);
  return mapped;
}
