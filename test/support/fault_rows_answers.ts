import { existsSync } from 'node:fs';
import { expect } from 'vitest';
import { files, model, type Row, SHARD } from './fault_table.ts';
import { edited, halfOfTheJson, header, script } from './hub_faults.ts';
import { hubRepository } from './hub_repository.ts';

/** Of a listing. */
interface Entry {
  type: string;
  path: unknown;
  size: unknown;
  oid: unknown;
  lfs?: { oid: string; size: number; pointerSize: number };
}

const INDEX = 'model.safetensors.index.json';
const tree = (change: (entries: Entry[]) => unknown): NonNullable<Row['script']> => {
  return () => script({ kind: 'tree', fault: edited(change as (value: never) => unknown) });
};
const revision =
  (value: unknown): NonNullable<Row['script']> =>
  () =>
    script({ kind: 'revision', fault: edited(() => value) });
const entry = (path: string, change: Partial<Entry>) =>
  tree((entries) => entries.map((entry) => (entry.path === path ? { ...entry, ...change } : entry)));
const shard = entry.bind(null, SHARD);
const lfsOfShard = (change: object) =>
  tree((entries) => entries.map((entry) => (entry.path === SHARD ? { ...entry, lfs: { ...entry.lfs, ...change } } : entry)));

/** A repository of which something is otherwise, for good. */
const repositoryWith = (change: Readonly<Record<string, Uint8Array | string | null>>) => {
  const main = Object.fromEntries(Object.entries({ ...files, ...change }).filter((file): file is [string, Uint8Array] => file[1] !== null));
  return { repositories: [hubRepository('org/name', { main })] };
};
/** An index in which a shard has another name. */
const renamed = (name: string) => Buffer.from(files[INDEX]!).toString().replaceAll(SHARD, name.replaceAll('\\', '\\\\'));
const bytes = files[SHARD]!;

const ABSOLUTE = '/tmp/olmo-hybrid-was-led-astray';
const WAYS_OUT = [
  '../astray',
  '../../../astray',
  ABSOLUTE,
  'a/../../../../astray',
  '..\\astray',
  'C:\\astray',
  '..',
  '.',
  '',
  'a\0b',
  'refs/../../astray',
  'LICENSE/../../../../../astray',
  'LICENSE/..',
  'LICENSE\0x',
  'LICENSE\\..\\astray',
];
const nowhereElse = () => expect(existsSync(ABSOLUTE)).toBe(false);

/** Answers of the API: none of them is believed further than it makes sense. */
export const answers: readonly Row[] = [
  {
    fault: 'half of the JSON, once',
    must: 'repeated',
    script: () => script({ kind: ['revision', 'tree'], times: 1, fault: halfOfTheJson() }),
  },
  {
    fault: 'half of the JSON, always',
    must: 'refused',
    script: () => script({ kind: 'tree', fault: halfOfTheJson() }),
    refused: /not JSON/,
  },
  ...[null, [], {}, 1, { sha: 'main' }, { sha: '../../../astray' }, { sha: null }].map(
    (value): Row => ({ fault: `a model that is ${JSON.stringify(value)}`, must: 'refused', script: revision(value), refused: /org\/name/ }),
  ),
  {
    fault: 'another commit than the one asked for',
    must: 'refused',
    id: `org/name@${model.refs.get('main')}`,
    script: revision({ sha: 'c'.repeat(40) }),
    refused: /expected the commit/,
  },
  ...[null, {}, 1, [null], [1], [{}], [{ type: 'file' }]].map(
    (value): Row => ({
      fault: `a listing that is ${JSON.stringify(value)}`,
      must: 'refused',
      script: tree(() => value),
      refused: /org\/name/,
    }),
  ),
  ...[-1, 1.5, 1e300, '12', null].map(
    (size): Row => ({ fault: `a size of ${size}`, must: 'refused', script: entry('config.json', { size }), refused: /org\/name/ }),
  ),
  ...['../../../astray', '', null, 'a'.repeat(39)].map(
    (oid): Row => ({
      fault: `the digest ${JSON.stringify(oid)}`,
      must: 'refused',
      script: entry('config.json', { oid }),
      refused: /org\/name/,
    }),
  ),
  { fault: 'a path that is a number', must: 'refused', script: shard({ path: 7 }), refused: /org\/name/ },
  {
    fault: 'a size that is too small by 1',
    must: 'refused',
    script: lfsOfShard({ size: bytes.byteLength - 1 }),
    refused: new RegExp(SHARD),
  },
  {
    fault: 'a size that is too large by 1',
    must: 'refused',
    script: lfsOfShard({ size: bytes.byteLength + 1 }),
    refused: new RegExp(SHARD),
  },
  {
    fault: 'a size that no disk has',
    must: 'refused before the first byte of it',
    script: lfsOfShard({ size: 2 ** 52 }),
    refused: /room for/,
    check: ({ requests }) => expect(requests.filter(({ path }) => path === SHARD)).toEqual([]),
  },
  { fault: 'the digest of another file', must: 'refused', script: lfsOfShard({ oid: 'e'.repeat(64) }), refused: /digest/ },
  {
    fault: 'two entries of one name',
    must: 'refused, or one of them',
    script: tree((entries) => [...entries, { ...entries.find(({ path }) => path === 'config.json'), oid: 'e'.repeat(40) }]),
    refused: /config\.json/,
  },
  ...WAYS_OUT.map(
    (path): Row => ({
      fault: `${JSON.stringify(path)} in the listing`,
      must: 'nothing is written there',
      script: tree((entries) => [...entries, { ...entries.find(({ path }) => path === 'config.json')!, path }]),
      check: nowhereElse,
    }),
  ),
  ...[
    '../astray.safetensors',
    `${ABSOLUTE}.safetensors`,
    'a/../../astray.safetensors',
    '..\\astray.safetensors',
    'C:astray.safetensors',
  ].map(
    (path): Row => ({
      fault: `${path} in the index, and in the listing`,
      must: 'refused',
      hub: repositoryWith({ [INDEX]: renamed(path), [path]: bytes }),
      refused: /index/,
      forGood: true,
      check: ({ requests }) => {
        nowhereElse();
        expect(requests.filter(({ url }) => url.includes('astray'))).toEqual([]);
      },
    }),
  ),
  {
    fault: 'a next page on another host',
    must: 'refused, nobody there is asked',
    script: ({ hub }) => script({ kind: 'tree', fault: header('link', `<${hub.cdn}/page>; rel="next"`) }),
    refused: /org\/name.*localhost/,
    check: ({ requests }) => expect(requests.filter(({ host }) => host === 'cdn')).toEqual([]),
  },
  {
    fault: 'a next page that is this one',
    must: 'bounded',
    script: ({ hub }) =>
      script({ kind: 'tree', fault: header('link', `<${hub.endpoint}/api/models/org/name/tree/main?recursive=true>; rel="next"`) }),
    refused: /org\/name/,
    check: ({ requests }) => expect(requests.length).toBeLessThan(2000),
  },
  {
    fault: 'next pages without end, each empty',
    must: 'bounded',
    script: ({ hub }) =>
      script({
        kind: 'tree',
        fault: (answer) =>
          edited(() => [])(header('link', `<${hub.endpoint}/api/models/org/name/tree/main?recursive=true>; rel="next"`)(answer)),
      }),
    refused: /org\/name/,
    check: ({ requests }) => expect(requests.length).toBeLessThan(2000),
  },
  { fault: 'pages of two entries', must: 'all read', hub: { page_entries: 2 } },
  {
    fault: '9,000 other files',
    must: 'not fetched',
    script: tree((entries) => [...entries, ...many(9000)]),
    check: ({ pulled }) => expect(pulled?.files).toBe(6),
  },
  { fault: '100,000 other files', must: 'refused', script: tree((entries) => [...entries, ...many(100_000)]), refused: /files/ },
];

function many(count: number): Entry[] {
  return Array.from({ length: count }, (_, i) => ({ type: 'file', path: `data/${i}.bin`, size: 1, oid: 'a'.repeat(40) }));
}

/** Repositories that are not what a model is. */
export const repositories: readonly Row[] = [
  {
    fault: 'no weights',
    must: 'refused, both names told',
    hub: repositoryWith({ [INDEX]: null }),
    refused: /model\.safetensors or model\.safetensors\.index\.json/,
    forGood: true,
  },
  {
    fault: 'no file at all',
    must: 'refused',
    hub: { repositories: [hubRepository('org/name', { main: {} })] },
    refused: /org\/name/,
    forGood: true,
  },
  { fault: 'no config.json', must: 'refused', hub: repositoryWith({ 'config.json': null }), refused: /config\.json/, forGood: true },
  {
    fault: 'an index that names a shard that is not there',
    must: 'refused, shard named',
    hub: repositoryWith({ [SHARD]: null }),
    refused: new RegExp(SHARD),
    forGood: true,
  },
  { fault: 'an index that is no JSON', must: 'refused', hub: repositoryWith({ [INDEX]: '{' }), refused: /index/, forGood: true },
  {
    fault: 'two files of the same content',
    must: 'fetched once',
    hub: repositoryWith({ 'special_tokens_map.json': files['config.json']! }),
    check: ({ requests }) =>
      expect(requests.filter(({ kind, path }) => kind === 'resolve' && /^(special_tokens_map|config)\.json$/.test(path)).length).toBe(2),
  },
  { fault: 'an empty file', must: 'pulled', hub: repositoryWith({ 'special_tokens_map.json': '' }) },
  {
    fault: 'a branch with slashes',
    must: 'pulled',
    id: 'org/name@refs/pr/1',
    hub: { repositories: [hubRepository('org/name', { main: files, 'refs/pr/1': files })] },
    check: ({ pulled }) => expect(pulled?.files).toBe(6),
    forGood: true,
  },
  {
    fault: 'a commit in place of a branch',
    must: 'pulled',
    id: `org/name@${model.refs.get('main')}`,
    check: ({ pulled }) => expect(pulled?.commit).toBe(model.refs.get('main')),
  },
];
