import { execFileSync } from 'node:child_process';
import { readdirSync, readFileSync, statSync } from 'node:fs';
import { dirname, join, relative } from 'node:path';
import { describe, expect, test } from 'vitest';
import { hasRelaxedSimd } from '../src/runtime/wasm_module.ts';
import { repository } from './support/models.ts';

/** Which folders of src/ (or files at its top) may be imported from where; `errors` and `words` from everywhere. */
const MAY_IMPORT: Readonly<Record<string, readonly string[]>> = {
  reference: ['runtime'],
  runtime: ['reference', 'checkpoint'], // reference_bank.ts brings the reference into the runtime
  model: ['config', 'runtime'],
  bf16: ['reference', 'runtime', 'model'],
  checkpoint: ['config', 'runtime', 'model'], // the parameters that a model declares
  config: ['text_file', 'rope_config'],
  rope_config: ['text_file'],
  hub: ['checkpoint', 'text_file', 'load', 'quantised_shards'],
  chat: [
    'chat_template',
    'generate',
    'tokenizer',
    'random',
    'sampler',
    'text_file',
    'thinking',
    'atomic_file',
    'load',
    'config',
    'checkpoint',
    'model',
    'runtime',
  ],
};
/** Packages that the library may need at run time; its client of the Hub may need two more, and the command line two others. */
const LIBRARY = ['@huggingface/jinja', '@huggingface/tokenizers'];
const HUB = ['@huggingface/hub', 'proper-lockfile'];
const COMMAND_LINE = ['commander', 'picocolors'];

const BUILDS = ['strict', 'strict.shared', 'relaxed', 'relaxed.shared'].map((build) => `build/${build}.wasm`);

const sources = readdirSync(repository('src'), { recursive: true, encoding: 'utf8' }).filter((file) => file.endsWith('.ts'));

/** What a source file imports: paths below src/, and names of packages. */
function importsOf(file: string): { files: string[]; packages: string[] } {
  const text = readFileSync(repository(`src/${file}`), 'utf8');
  const specifiers = [...text.matchAll(/^(?:import|export)\b[^'"`;]*?from '([^']+)'|(?:\bimport|\.resolve)\('([^']+)'\)/gm)].map(
    (match) => match[1] ?? match[2]!,
  );
  const local = specifiers.filter((specifier) => specifier.startsWith('.'));
  return {
    files: local.map((specifier) => join(dirname(file), specifier)),
    packages: specifiers.filter((specifier) => !specifier.startsWith('.') && !specifier.startsWith('node:')),
  };
}

const part = (file: string) => file.split('/')[0]!.replace('.ts', '');

describe.each(Object.entries(MAY_IMPORT))('src/%s', (name, allowed) => {
  test.each(sources.filter((file) => part(file) === name))('%s imports in the direction of the data only', (file) => {
    const strangers = importsOf(file).files.filter((other) => ![name, 'errors', 'words', ...allowed].includes(part(other)));
    expect(strangers).toEqual([]);
  });
});

test('no file imports itself by way of others', () => {
  const graph = new Map(sources.map((file) => [file, importsOf(file).files]));
  const done = new Set<string>();
  const visit = (file: string, path: readonly string[]): void => {
    expect(path, 'a cycle').not.toContain(file);
    if (done.has(file)) return;
    for (const next of graph.get(file) ?? []) visit(next, [...path, file]);
    done.add(file);
  };
  for (const file of sources) visit(file, []);
});

test('the library needs two packages, the client of the Hub and the command line two more each, and package.json lists these', () => {
  const needed = (files: string[]) => [...new Set(files.flatMap((file) => importsOf(file).packages))].sort();
  expect(needed(sources.filter((file) => !['cli', 'hub', 'testing'].includes(part(file))))).toEqual(LIBRARY);
  expect(needed(sources.filter((file) => part(file) === 'hub'))).toEqual(HUB);
  expect(needed(sources.filter((file) => part(file) === 'cli')).filter((name) => !LIBRARY.includes(name))).toEqual(COMMAND_LINE);
  const { dependencies } = JSON.parse(readFileSync(repository('package.json'), 'utf8')) as { dependencies: Record<string, string> };
  expect(Object.keys(dependencies).sort()).toEqual([...LIBRARY, ...HUB, ...COMMAND_LINE].sort());
  for (const version of Object.values(dependencies)) expect(version).toMatch(/^\d+\.\d+\.\d+$/);
});

test('the property kit needs fast-check, which is a peer and optional, and the library does not need the kit', () => {
  const files = sources.filter((file) => part(file) === 'testing');
  expect([...new Set(files.flatMap((file) => importsOf(file).packages))]).toEqual(['fast-check']);
  const users = sources.filter((file) => part(file) !== 'testing' && importsOf(file).files.some((other) => part(other) === 'testing'));
  expect(users).toEqual([]);
  const { peerDependencies, peerDependenciesMeta, exports } = JSON.parse(readFileSync(repository('package.json'), 'utf8'));
  expect(peerDependencies).toEqual({ 'fast-check': '^4.0.0' });
  expect(peerDependenciesMeta).toEqual({ 'fast-check': { optional: true } });
  expect(exports['./testing']).toEqual({ types: './dist/testing/index.d.ts', default: './dist/testing/index.js' });
});

test('the package holds what the code opens at run time, and stays small', () => {
  const listing = execFileSync('npm', ['pack', '--dry-run', '--json', '--ignore-scripts'], { cwd: repository('.'), encoding: 'utf8' });
  const [{ files, size }] = JSON.parse(listing) as [{ files: { path: string }[]; size: number }];
  const paths = files.map(({ path }) => path);
  for (const path of [
    ...BUILDS,
    'dist/runtime/worker.js',
    'dist/index.js',
    'dist/index.d.ts',
    'dist/kernels.js',
    'dist/testing/index.js',
    'dist/cli/main.js',
  ])
    expect(paths).toContain(path);
  for (const file of ['config.json', 'model.safetensors', 'tokenizer.json', 'generation_config.json'])
    expect(paths).toContain(`src/embedded/${file}`);
  expect(paths).toContain('golden/models/nope/expected.safetensors');
  expect(paths.filter((path) => path.endsWith('.py') || path.startsWith('test/'))).toEqual([]);
  expect(size).toBeLessThan(25e6);
});

test('the kernels are small and hold no data of their own', async () => {
  const relaxed = await hasRelaxedSimd();
  for (const file of BUILDS) {
    expect(statSync(repository(file)).size).toBeLessThan(64 * 1024);
    if (file.includes('relaxed') && !relaxed) continue;
    const imports = WebAssembly.Module.imports(new WebAssembly.Module(readFileSync(repository(file))));
    expect(imports).toEqual([expect.objectContaining({ module: 'env', name: 'memory', kind: 'memory' })]);
  }
});

test('files stay short enough to be read', () => {
  const assembly = readdirSync(repository('assembly')).filter((file) => file.endsWith('.ts'));
  const long = [...sources.map((file) => `src/${file}`), ...assembly.map((file) => `assembly/${file}`)]
    .map((file) => [relative('.', file), readFileSync(repository(file), 'utf8').split('\n').length] as const)
    .filter(([, lines]) => lines > 350);
  expect(long).toEqual([]);
});
