import { readFileSync, writeFileSync } from 'node:fs';
import { installedChromium } from './chromium_engine.ts';
import { type Bits, WAYS, type Way } from './digest.ts';
import { type Engine, installedNode, nodeFromRegistry } from './node_engine.ts';

// Compares the bits of every golden model over engines, cuts of the prompt and threads; `--update` commits those of the installed Node if all agree.
const DIGESTS = new URL('../../test/engines/digests.json', import.meta.url);
const PAGE = new URL('../../docs/engines.md', import.meta.url);
const TABLE = '## Table\n\n';
const NODE_VERSIONS = [20, 22, 24, 26];
const ways = Object.keys(WAYS) as Way[];

interface DigestFile {
  readonly _comment: string;
  /** sha256 by golden model. */
  readonly models: Readonly<Record<string, string>>;
}

const update = process.argv.includes('--update');
const committed = JSON.parse(readFileSync(DIGESTS, 'utf8')) as DigestFile;

const engines: Engine[] = [installedNode()];
for (const major of NODE_VERSIONS) engines.push(await nodeFromRegistry(major));
engines.push(await installedChromium());

const columns: { name: string; bits: Bits }[] = [];
for (const engine of engines) {
  if ('missing' in engine) {
    console.error(`${engine.name}: skipped, ${engine.missing}`);
    continue;
  }
  columns.push({ name: engine.name, bits: await engine.run() });
  try {
    await engine.testFastMode?.();
  } catch (error) {
    console.error(`${engine.name}: fast mode\n${(error as Error).message}`);
    process.exitCode = 1;
  }
}

const found = Object.entries(columns[0]!.bits).map(([name, digests]) => [name, digests.all] as const);
const expected = update ? Object.fromEntries(found) : committed.models;
const names = [...new Set([...Object.keys(expected), ...found.map(([name]) => name)])].sort();
const differences = (bits: Bits, name: string) => ways.filter((way) => bits[name]?.[way] !== expected[name]);
const verdict = (different: readonly Way[]) => (different.length === 0 ? 'same' : `DIFFERENT (${different.join(', ')})`);

const rows = names.map((name) => [
  name,
  `\`${expected[name]?.slice(0, 12) ?? 'none'}\``,
  ...columns.map(({ bits }) => verdict(differences(bits, name))),
]);
const count = names.length * columns.length * ways.length;
const different = names.flatMap((name) => columns.flatMap(({ bits }) => differences(bits, name))).length;
const table = [['golden model', 'sha256', ...columns.map(({ name }) => name)], ['---', '---', ...columns.map(() => '---')], ...rows]
  .map((cells) => `| ${cells.join(' | ')} |\n`)
  .join('');
const agreed = `${count - different} of ${count} digests the same`;
const summary = `${names.length} models × ${columns.length} engines × ${ways.length} ways (tokens in a call: 1, 7, 64, all; 2 and 3 threads), ${process.platform} ${process.arch}: ${agreed}.\n`;
process.stdout.write(`${table}\n${summary}`);

if (different > 0) process.exitCode = 1;
else if (update) {
  writeFileSync(DIGESTS, `${JSON.stringify({ _comment: committed._comment, models: expected }, null, 2)}\n`);
  const page = readFileSync(PAGE, 'utf8');
  writeFileSync(PAGE, `${page.slice(0, page.indexOf(TABLE))}${TABLE}${table}\n${summary}`);
}
