import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { isSmall } from '../src/checkpoint/model_files.ts';
import { type HubEnvironment, hubEnvironment } from '../src/hub/environment.ts';
import { pull } from '../src/hub/pull.ts';
import { pullQuantised } from '../src/hub/pull_quantised.ts';
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
