import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { isSmall } from '../src/checkpoint/model_files.ts';
import { QUANTISED_FORMAT_VERSION } from '../src/checkpoint/quantised.ts';
import { type HubEnvironment, hubEnvironment } from '../src/hub/environment.ts';
import { cachedFolder } from '../src/hub/locate.ts';
import { pull } from '../src/hub/pull.ts';
import { pullQuantised } from '../src/hub/pull_quantised.ts';
import { quantizeCheckpoint } from '../src/quantize.ts';
import { edited, script } from './support/hub_faults.ts';
import { filesOf, hubRepository } from './support/hub_repository.ts';
import { repository } from './support/models.ts';
import { type ScriptedHub, startScriptedHub } from './support/scripted_hub.ts';

// Between here and the Hub may be a mirror or a proxy that wants more than to pass files on.

const id = { repository: 'org/name', revision: 'main' };

let hub: ScriptedHub;
let home: string;
let environment: HubEnvironment;

beforeAll(async () => {
  hub = await startScriptedHub({ repositories: [hubRepository('org/name', { main: filesOf(repository('golden/models/sharded')) })] });
});
beforeEach(async () => {
  home = await mkdtemp(join(tmpdir(), 'olmo-hybrid-hub-'));
  environment = { ...(await hubEnvironment({ HF_HOME: join(home, 'hf'), HF_ENDPOINT: hub.endpoint })), retry_delay_ms: 1 };
  hub.requests.length = 0;
  hub.script = undefined;
  return () => rm(home, { recursive: true });
});
afterAll(() => hub.close());

interface Entry {
  readonly path: string;
}

describe('names that lead out of the cache', () => {
  /** config.json once more in the listing, under another name. */
  const listedAs = (path: string) =>
    script({
      kind: 'tree',
      fault: edited((entries: readonly Entry[]) => [...entries, { ...entries.find(({ path }) => path === 'config.json'), path }]),
    });

  test.each([
    ['pull', `LICENSE/${'../'.repeat(6)}mine`, async () => await pull(id, { environment })],
    ['pull to q4', `LICENSE/${'../'.repeat(8)}mine`, async () => await pullQuantised(id, { environment, weights: 'q4' })],
  ])('%s passes them over', async (_, path, pulled) => {
    const mine = join(home, 'mine');
    writeFileSync(mine, 'my own');
    hub.script = listedAs(path);
    const { folder } = await pulled();
    expect(join(folder, path)).toBe(mine);
    expect(readFileSync(mine, 'utf8')).toBe('my own');
    expect(existsSync(join(folder, 'config.json'))).toBe(true);
  });

  test.each(['LICENSE', 'LICENSE.txt', 'LICENSE-APACHE', 'config.json', 'additional_chat_templates/rag.jinja'])(
    '%j is a small file',
    (name) => {
      expect(isSmall(name)).toBe(true);
    },
  );

  test.each([
    'LICENSE/x',
    'LICENSE/../../x',
    'LICENSE\\x',
    'LICENSE\0',
    'LICENSE\n',
    'additional_chat_templates/../x.jinja',
    'a/config.json',
  ])('%j is none', (name) => {
    expect(isSmall(name)).toBe(false);
  });
});

describe('quantised on the way, what was planned by and what is digested are the same', () => {
  const SHARD = 'model-00002-of-00003.safetensors';
  const INDEX = 'model.safetensors.index.json';
  const options = () => ({ environment, weights: 'q4' as const });
  /** Of the answers to requests of such a range, the bytes in which a text is replaced by another as long. */
  const replaced = (path: string, from: string, to: string, range?: RegExp) =>
    script({
      path,
      when: ({ headers, url }) => (range?.test(headers.range ?? '') ?? true) && !url.includes('/resolve/'),
      times: 1,
      fault: (answer) => {
        const text = Buffer.from(answer.body).toString('latin1');
        expect(text).toContain(from);
        return { ...answer, body: Buffer.from(text.replace(from, to), 'latin1') };
      },
    });

  /** The places of two matrices of the same shape. */
  const GATE_AND_UP = (
    gate: string,
    up: string,
  ) => `"model.layers.1.mlp.gate_proj.weight":{"dtype":"BF16","shape":[54,40],"data_offsets":[${gate}]},\
"model.layers.1.mlp.up_proj.weight":{"dtype":"BF16","shape":[54,40],"data_offsets":[${up}]}`;
  const swapped = [GATE_AND_UP('12328,16648', '16648,20968'), GATE_AND_UP('16648,20968', '12328,16648')] as const;

  test.each([
    [
      'a header that was other when it was looked at',
      () => replaced(SHARD, ...swapped, /^bytes=8-/),
      /00002-of-00003.*that were read before/,
    ],
    [
      'a header that is other when it comes in full',
      () => replaced(SHARD, ...swapped, /^bytes=0-\d{4}/),
      /00002-of-00003.*that were read before/,
    ],
    ['a config.json', () => replaced('config.json', '1e-06', '1e-02'), /config\.json: expected a file of digest/],
    ['an index', () => replaced(INDEX, 'gate_proj', 'gate-proj'), /index\.json: expected a file of digest/],
  ])('%s', async (_, wrong, message) => {
    hub.script = wrong();
    await expect(pullQuantised(id, options())).rejects.toThrow(message);
    expect(await cachedFolder(id, options())).toBeNull();
    hub.script = undefined;
    const { folder } = await pullQuantised(id, options());
    await quantizeCheckpoint(repository('golden/models/sharded'), join(home, 'trusted'), { weights: 'q4' });
    for (const name of ['config.json', INDEX]) expect(readFileSync(join(folder, name))).toEqual(readFileSync(join(home, 'trusted', name)));
    expect(dataOf(join(folder, SHARD))).toEqual(dataOf(join(home, 'trusted', SHARD)));
  });

  test('a shard that is there with another header is made anew', async () => {
    const { folder } = await pullQuantised(id, options());
    const path = join(folder, SHARD);
    const made = readFileSync(path);
    await rm(join(folder, 'config.json')); // so that the folder is not taken for complete
    writeFileSync(path, Buffer.from(made.toString('latin1').replace(`_version":"${QUANTISED_FORMAT_VERSION}"`, '_version":"0"'), 'latin1'));
    expect(readFileSync(path)).not.toEqual(made);
    await pullQuantised(id, options());
    expect(readFileSync(path)).toEqual(made);
  });
});

/** The bytes behind the header, whose metadata says where the weights came from. */
function dataOf(path: string): Buffer {
  const bytes = readFileSync(path);
  return bytes.subarray(8 + Number(bytes.readBigUInt64LE()));
}
