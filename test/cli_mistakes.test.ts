import { closeSync, existsSync, openSync } from 'node:fs';
import { cp, mkdir, truncate, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, it, vi } from 'vitest';
import { report } from '../src/cli/mistake.ts';
import { ended, fileOf, run, sharedFolder, start } from './support/command_line.ts';

const folder = await sharedFolder();
const NOPE = 'golden/models/nope';
const TOKENIZER = 'golden/tokenizer';

const tokens = await fileOf(folder, 'tokens.json', [5, 3, 8]);
const none = await fileOf(folder, 'none.json', []);
const empty = await fileOf(folder, 'empty.json', '');
const notJson = await fileOf(folder, 'not_json.json', '[1, 2');
const object = await fileOf(folder, 'object.json', { ids: [1] });
const outOfRange = await fileOf(folder, 'out_of_range.json', [5, 97, 3, -1]);
const fractions = await fileOf(folder, 'fractions.json', [1.5, '2']);
const long = await fileOf(
  folder,
  'long.json',
  Array.from({ length: 5000 }, () => 7),
);
const surrogate = await fileOf(folder, 'surrogate.json', '["a", "\\ud800"]');
const numbers = await fileOf(folder, 'numbers.json', [1, 'text']);
const unknownIds = await fileOf(folder, 'unknown_ids.json', [[1], [999999]]);
const output = join(folder, 'out.safetensors');

/** A copy of a golden model that is changed. */
async function changed(name: string, change: (dir: string) => Promise<void>): Promise<string> {
  const dir = join(folder, name);
  await cp(NOPE, dir, { recursive: true });
  await change(dir);
  return dir;
}

const cut = await changed('cut', (dir) => truncate(join(dir, 'model.safetensors'), 200_000));
const badConfig = await changed('bad_config', (dir) => writeFile(join(dir, 'config.json'), '{"model_type": "llama"}'));
const badTokenizer = await changed('bad_tokenizer', (dir) => writeFile(join(dir, 'tokenizer.json'), '{'));
const foreignTokenizer = await changed('foreign_tokenizer', (dir) => cp(join(TOKENIZER, 'tokenizer.json'), join(dir, 'tokenizer.json')));
const weightless = join(folder, 'weightless');
await mkdir(weightless);
await cp(join(NOPE, 'config.json'), join(weightless, 'config.json'));

// what is wrong | the command line | what the message says: where or expected, found, what to do
const MISTAKES: readonly (readonly [string, readonly string[], ...string[]])[] = [
  ['unknown command', ['genrate'], 'a command', 'genrate', 'generate?'],
  ['unknown option', ['generate', '--tmperature', '1'], 'an option', '--tmperature', '--temperature?'],
  ['unknown global option', ['--frob'], 'an option', '--frob', '--help'],
  ['option without its value', ['generate', '--seed'], '--seed', 'none', 'generate --help'],
  ['no required option', ['logits', '--tokens', tokens], '--output', 'none', 'logits --help'],
  ['prompt without quotes', ['generate', 'It', 'was'], 'quotes', 'too many', 'generate --help'],
  ['not a number', ['generate', '--temperature', 'hot'], '--temperature', '"hot"', 'another value'],
  ['empty number', ['generate', '--top-p', ''], 'a number', '""', 'another value'],
  ['not an integer', ['generate', '--max-tokens', '2.5'], 'an integer', '"2.5"', 'another value'],
  ['negative count', ['generate', '--max-tokens', '-1'], 'at least 0', '"-1"', 'another value'],
  ['no room at all', ['generate', '--context', '0'], 'at least 1', '"0"', 'another value'],
  ['seed of 70 bits', ['generate', '--seed', '999999999999999999999'], '64 bits', '999999999999999999999', 'integer'],
  ['seed that is none', ['generate', '--seed', 'x'], '--seed', '"x"', 'another value'],
  ['top-p out of range', ['generate', '--top-p', '2'], '--top-p: expected a number in (0, 1]', 'found 2', 'Use 1'],
  ['negative temperature', ['generate', '--temperature', '-1'], '--temperature', 'found -1', 'Use 0'],
  ['empty stop string', ['generate', '--stop', ''], '--stop[0]', '""', 'Leave it out'],
  ['unknown kernels', ['generate', '--kernels', 'cuda'], 'wasm or reference', '"cuda"', 'another value'],
  ['unknown mode', ['logits', '--mode', 'loose'], 'strict or fast', '"loose"', 'another value'],
  ['prompt chunk of 0', ['generate', '--prefill-chunk', '0'], '--prefill-chunk', '"0"', 'another value'],
  ['prompt and tokens', ['generate', 'It was', '--tokens', tokens], 'a prompt or --tokens', 'both', 'Leave one'],
  ['empty prompt', ['generate', ''], 'at least one token', 'none', 'Give a text'],
  ['no model folder', ['generate', '--model', join(folder, 'missing')], 'config.json', 'nothing', 'Give the folder'],
  ['model that is a file', ['inspect', '--model', tokens], 'config.json', 'ENOTDIR', 'path'],
  ['other architecture', ['inspect', '--model', badConfig], '"olmo_hybrid" or "olmo3"', '"llama"', 'only'],
  ['no weights', ['inspect', '--model', weightless], 'model.safetensors', 'only "config.json"', 'Download'],
  ['weights cut off', ['logits', '--model', cut, '--tokens', tokens, '--output', output], 'data up to byte', '200000', 'incomplete'],
  ['text without a tokenizer', ['generate', '--model', NOPE, 'It was'], 'tokenizer.json', 'none', '--tokens FILE.json'],
  ['stop string without a tokenizer', ['generate', '--model', NOPE, '--tokens', tokens, '--stop', 'a'], 'for --stop', 'none', 'Copy'],
  [
    'damaged tokenizer',
    ['generate', '--model', badTokenizer, '--tokens', tokens],
    'tokenizer.json: expected JSON',
    'found',
    'download it again',
  ],
  ['tokenizer of another model', ['generate', '--model', foreignTokenizer, 'a'], 'ids below 97', 'ids up to', 'same revision'],
  ['no token file', ['generate', '--tokens', join(folder, 'missing.json')], 'JSON array of token ids', 'no such file', 'Check the path'],
  ['token file that is a folder', ['generate', '--tokens', folder], 'a file', 'a folder', 'Check the path'],
  ['empty token file', ['generate', '--tokens', empty], 'JSON array', 'an empty file', 'Check the path'],
  ['token file that is not JSON', ['logits', '--tokens', notJson, '--output', output], 'JSON array', 'found', 'Check the path'],
  ['token file with an object', ['generate', '--tokens', object], 'JSON array', '{"ids":[1]}', 'Check the path'],
  ['no tokens', ['logits', '--tokens', none, '--output', output], 'at least one token id', 'an empty array', 'predicts'],
  [
    'token out of range',
    ['generate', '--model', NOPE, '--tokens', outOfRange],
    '[1]: expected a token id, an integer in [0, 97)',
    'found 97',
    'tokenizer',
  ],
  ['every token out of range', ['logits', '--model', NOPE, '--tokens', outOfRange, '--output', output], '[3]', 'found -1', 'tokenizer'],
  ['tokens that are no integers', ['generate', '--model', NOPE, '--tokens', fractions], '[0]', 'found 1.5', 'tokenizer'],
  [
    'prompt longer than --context',
    ['generate', '--model', NOPE, '--tokens', tokens, '--context', '2'],
    'at most 2 tokens, the --context',
    'found 3',
    'up to 4096',
  ],
  ['prompt longer than the model', ['generate', '--model', NOPE, '--tokens', long], 'at most 4096', 'found 5000', 'Shorten'],
  [
    'context longer than the model',
    ['generate', '--model', NOPE, '--tokens', tokens, '--context', '4097'],
    '1 to 4096',
    'found 4097',
    'Choose',
  ],
  [
    'more logits than the model',
    ['logits', '--model', NOPE, '--tokens', long, '--output', output],
    'at most 4096',
    'found 5000',
    'Shorten',
  ],
  [
    'output in no folder',
    ['logits', '--tokens', tokens, '--output', join(folder, 'no/out')],
    'can be written',
    'no such folder',
    'another path',
  ],
  [
    'output that is a folder',
    ['logits', '--model', NOPE, '--tokens', tokens, '--output', folder],
    'can be written',
    'a folder',
    'another path',
  ],
  ['output that is read', ['logits', '--tokens', tokens, '--output', tokens], '--output: expected a file that is not read', tokens, 'lost'],
  [
    'output that is a file of the model',
    ['trace', '--model', NOPE, '--tokens', tokens, '--output', `${NOPE}/config.json`],
    'a file that is not read',
    'config.json',
    'lost',
  ],
  [
    'report in no folder, before the runtime is started',
    ['conform', '--runtime', 'no-such-program', '--junit', join(folder, 'no/out')],
    'can be written',
    'no such folder',
    'another path',
  ],
  ['folder that is there', ['quantize', join(folder, 'missing'), folder, '--weights', 'q4'], 'nothing, for it', 'a folder', 'another path'],
  [
    'folder that cannot be made',
    ['quantize', join(folder, 'missing'), join(tokens, 'out'), '--weights', 'q4'],
    'a folder that can be made',
    'a file in the place of a folder',
    'another path',
  ],
  ['empty output', ['trace', '--tokens', tokens, '--output', ''], '--output: expected a path', '""', 'another value'],
  ['empty model', ['generate', '--model', ''], '--model: expected a path', '""', 'another value'],
  ['no argument', ['cache', 'rm'], 'the argument <model>', 'none', 'cache rm --help'],
  ['unknown part of a command', ['cache', 'rn', 'a/b'], 'a command', 'rn', 'rm?'],
  ['model that is not in the cache', ['cache', 'verify', 'org/none'], 'it in the cache', 'it not there', 'cache ls'],
  [
    'name of no intermediate',
    ['trace', '--model', NOPE, '--tokens', tokens, '--output', output, '--only', 'model.layers.0*', 'bogus'],
    'a name of an intermediate',
    'found "bogus"',
    'docs/trace_format.md',
  ],
  ['no input file', ['tokenize', '--input', join(folder, 'missing.json'), '--json'], 'texts', 'no such file', 'Check the path'],
  ['texts that are none', ['tokenize', '--input', numbers, '--json'], '[0]: expected a text', 'found 1', 'quotes'],
  ['half a character', ['tokenize', '--input', surrogate, '--json'], '[1]: expected well-formed Unicode', 'U+D800', 'cut in half'],
  ['no tokenizer', ['tokenize', '--model', NOPE, '--input', surrogate], 'a tokenizer', 'no such file', 'Copy it'],
  ['ids that are no lists', ['detokenize', '--input', numbers, '--json'], '[0]: expected an array', 'found 1', 'one array'],
  [
    'ids without a token',
    ['detokenize', '--model', TOKENIZER, '--input', unknownIds],
    '[1]: expected ids of tokens',
    '999999',
    'this tokenizer',
  ],
  ['verify another model in bfloat16', ['verify', '--kernels', 'bf16', '--model', NOPE], 'no model of its own', NOPE, 'trace'],
  ['no runtime', ['conform'], 'the option --runtime', 'none', 'conform --help'],
  ['runtime that is no program', ['conform', '--runtime', 'no-such-program'], 'can be run', 'no such program', 'without a shell'],
  ['runtime of no words', ['conform', '--runtime', ' '], 'a program', 'nothing', 'Give the command'],
  ['runtime with open quotes', ['conform', '--runtime', "sh -c 'x"], "a second '", 'sh -c', 'Close'],
  ['unknown placeholder', ['conform', '--runtime', 'x {ids}'], '{tokens}', '{ids}', 'stdin'],
  ['placeholder left out', ['conform', '--runtime', 'x {model} {output}'], '{tokens}', 'no {tokens}', 'stdin'],
  ['unknown level', ['conform', '--runtime', 'x', '--level', 'speed'], 'prefill_decode', '"speed"', 'another value'],
  ['nothing to verify', ['verify', '--model', weightless], 'expected.safetensors', 'no such file', 'golden/release'],
  [
    'nothing to verify on the Hub',
    ['verify', '--model', 'org/none'],
    'expected.safetensors',
    'no such model in the cache',
    'golden/release',
  ],
];

describe('a mistake ends with exit code 1 and says what was expected, what was found and what to do', () => {
  it.concurrent.each(MISTAKES)('%s', async (_, args, ...said) => {
    const { code, stdout, stderr } = await run(...args);
    for (const part of said) expect(stderr).toContain(part);
    expect(stderr).toMatch(/^error .*expected .*, found .*\. .*[.?]\n/m);
    expect(stderr).not.toMatch(/^ +at /m);
    expect(code).toBe(1);
    expect(stdout).toBe('');
  });

  it.concurrent('reports all problems at once', async () => {
    const { stderr } = await run('generate', '--top-p', '0', '--min-p', '7', '--stop', '');
    expect(stderr.match(/^error --(top-p|min-p|stop)/gm)).toHaveLength(3);
  });

  it.concurrent('shows where in the program with --debug, before or after the command', async () => {
    for (const args of [
      ['--debug', 'inspect'],
      ['inspect', '--debug'],
    ]) {
      const { code, stderr } = await run(...args, '--model', weightless);
      expect(stderr).toMatch(/^ +at .*checkpoint_folder/m);
      expect(code).toBe(1);
    }
  });
});

describe('diff', () => {
  it.concurrent.each([
    ['unknown option', ['a', 'b', '--frob'], '--frob'],
    ['missing argument', ['a'], 'the argument <b>'],
    ['no file', [join(folder, 'a'), join(folder, 'b')], 'no such file'],
    ['page over an input', [tokens, object, '--html', tokens], 'a file that is not read'],
    ['page in no folder', [tokens, object, '--html', join(folder, 'no/page')], 'no such folder'],
  ])('%s: exit code 2, for 1 is a difference', async (_, args, said) => {
    const { code, stdout, stderr } = await run('diff', ...args);
    expect([code, stdout]).toEqual([2, '']);
    expect(stderr).toContain(said);
  });

  it.concurrent('shows where in the program with --debug', async () => {
    expect((await run('diff', join(folder, 'a'), join(folder, 'b'), '--debug')).stderr).toMatch(/^ +at /m);
  });
});

it('a bug ends with exit code 2, and a hint instead of a stack trace', () => {
  let stderr = '';
  const spy = vi.spyOn(process.stderr, 'write').mockImplementation((text) => {
    stderr += text;
    return true;
  });
  try {
    expect(report(new TypeError('x is undefined'), 'olmo-hybrid', false)).toBe(2);
    expect(stderr).toMatch(/^error .*This is a bug in olmo-hybrid: TypeError: x is undefined.*--debug.*\n$/);
    expect(report(new TypeError('x is undefined'), 'olmo-hybrid', true)).toBe(2);
    expect(stderr).toMatch(/^ +at /m);
  } finally {
    spy.mockRestore();
  }
});

it.runIf(existsSync('/dev/full'))('a full disk under stdout is said in one line', async () => {
  const full = openSync('/dev/full', 'w');
  const child = start({ stdout: full }, 'inspect');
  const { code, stderr } = await ended(child);
  closeSync(full);
  expect(stderr).toMatch(/^error stdout: expected a place to write to, found .*no space.*\. Send the output elsewhere\.\n$/);
  expect(code).toBe(1);
});
