import { existsSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import { describe, test } from 'vitest';
import { requireModelId } from '../src/hub/model_id.ts';
import { pull } from '../src/hub/pull.ts';
import { breakDownloads, MOMENTS, type Way } from './support/broken_downloads.ts';
import { pathsBelow } from './support/hub_cache.ts';
import { filesOf, hubRepository } from './support/hub_repository.ts';
import { goldenModel, repository } from './support/models.ts';
import { startPull } from './support/pull_process.ts';
import { startScriptedHub } from './support/scripted_hub.ts';

const MAIN = repository('dist/cli/main.js');
const LONG = { timeout: 60_000 };
const KILLS = 3;

describe('downloads that are broken off at random points are taken up', () => {
  const seeds = (first: number, count: number) => Array.from({ length: count }, (_, i) => first + i);

  test.concurrent('by SIGKILL, or with two processes at once', LONG, async ({ expect }) => {
    const ways: Way[] = ['killed', 'killed', 'raced'];
    const downloads = await breakDownloads({
      main: MAIN,
      seeds: seeds(1, 12),
      wayOf: (seed) => ways[seed % ways.length]!,
      bytesOf: () => 1_000_003,
      bytes_per_second: 2e6,
      most_kills: 1, // a lock of who was killed is stale after 5 s
      parallel: 12,
    });
    expect(downloads.filter(({ wrong }) => wrong.length > 0)).toEqual([]);
    const moments = downloads.flatMap(({ moments }) => moments);
    expect(moments.filter((moment) => moment === MOMENTS[1]).length).toBeGreaterThan(moments.length / 4);
  });

  test.concurrent('by a server that cuts', LONG, async ({ expect }) => {
    const downloads = await breakDownloads({
      main: MAIN,
      seeds: seeds(1001, 60),
      wayOf: () => 'cut',
      bytesOf: (seed) => (seed % 25 === 0 ? 20_000_003 : 100_003),
      bytes_per_second: 400e6,
      most_kills: 0,
      parallel: 6,
      pull: async (endpoint, cache, id) => {
        const given = { endpoint, cache, assets: join(cache, 'assets'), token: null, offline: false };
        await pull(requireModelId(id), { environment: { ...given, idle_timeout_ms: 10_000, retry_delay_ms: 1 } });
      },
    });
    expect(downloads.filter(({ wrong }) => wrong.length > 0)).toEqual([]);
    expect(downloads.reduce((sum, { cuts }) => sum + cuts, 0)).toBeGreaterThan(60);
  });

  test.concurrent(
    'a model that is quantised on its way is there in full or not at all, wherever it was killed',
    LONG,
    async ({ expect, onTestFinished }) => {
      const sharded = hubRepository('org/name', { main: filesOf(goldenModel('sharded'), (path) => path !== 'expected.safetensors') });
      const bytes = [...sharded.commits.values()][0]!.reduce((sum, { content }) => sum + content.byteLength, 0);
      const hub = await startScriptedHub({ repositories: [sharded], bytes_per_second: 200_000 });
      onTestFinished(hub.close);
      const work = await mkdtemp(join(tmpdir(), 'olmo-hybrid-'));
      onTestFinished(() => rm(work, { recursive: true }));
      const at = (name: string) => ({
        HF_ENDPOINT: hub.endpoint,
        HF_HUB_CACHE: join(work, name, 'cache'),
        HF_ASSETS_CACHE: join(work, name, 'assets'),
      });
      const begin = (name: string) => startPull(MAIN, 'org/name', at(name), '--weights', 'q4', '--only-quantised');
      const made = (name: string) => {
        const folder = join(work, name, 'assets', 'olmo-hybrid', 'models--org--name', 'snapshots', sharded.refs.get('main')!, 'q4');
        return existsSync(folder) ? filesOf(folder) : null;
      };
      const sent = () => hub.requests.filter(({ kind }) => kind === 'cdn').reduce((sum, { sent_bytes }) => sum + sent_bytes, 0);
      expect((await begin('whole').ended).code).toBe(0);
      const whole = made('whole');
      expect(Object.keys(whole!)).toContain('model-00003-of-00003.safetensors');

      const broken = Array.from({ length: KILLS }, async (_, i) => {
        const process = begin(`${i}`);
        const [before, share] = [sent(), (i + 0.5) / KILLS];
        // All are sent to at the same time.
        while (process.running() && sent() - before < KILLS * share * bytes) await pause(2);
        process.kill('SIGKILL');
        const { code } = await process.ended;
        if (code === null) expect([null, whole]).toContainEqual(made(`${i}`));
        expect((await begin(`${i}`).ended).code).toBe(0);
        expect(made(`${i}`)).toEqual(whole);
        expect(pathsBelow(join(work, `${i}`, 'cache'))).toEqual([]);
      });
      await Promise.all(broken);
    },
  );
});
