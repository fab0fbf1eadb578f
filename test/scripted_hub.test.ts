import { createHash } from 'node:crypto';
import { readFile, readlink } from 'node:fs/promises';
import { join } from 'node:path';
import { downloadFile, fileDownloadInfo, HubApiError, type ListFileEntry, listFiles, modelInfo, snapshotDownload } from '@huggingface/hub';
import { describe, expect, onTestFinished, test, vi } from 'vitest';
import { type HubOptions, type ScriptedHub, startScriptedHub } from './support/scripted_hub.ts';
import { cut, flippedBit, script, status, wholeFile } from './support/hub_faults.ts';
import { etagOf, filesOf, hubRepository } from './support/hub_repository.ts';
import { goldenModel, temporaryFolder } from './support/models.ts';

// The hub of the other tests, seen by the Hub's own client: what it does not notice as a mistake, it does as the Hub does.
const sharded = filesOf(goldenModel('sharded'));
const repo = 'org/name';
const tokens = { hf_all: 'reads all', hf_public: 'reads public' } as const;
const repository = hubRepository(repo, { main: { ...sharded, 'sub/deep/a b.txt': 'text' }, 'stage1-step10000': { 'config.json': '{}' } });
const files = repository.commits.get(repository.refs.get('main')!)!;
const shard = files.find(({ path }) => path === 'model-00002-of-00003.safetensors')!;

async function hubOf(options: Partial<HubOptions> = {}): Promise<ScriptedHub> {
  const closed = (access: 'gated' | 'private') => hubRepository(`org/${access}`, { main: { 'config.json': '{}' } }, { access });
  const hub = await startScriptedHub({ repositories: [repository, closed('gated'), closed('private')], tokens, ...options });
  onTestFinished(hub.close);
  return hub;
}

/** What the client was refused with. */
async function refused(attempt: Promise<unknown>): Promise<[number, string]> {
  const error = await attempt.then(
    () => null,
    (error: unknown) => error,
  );
  if (!(error instanceof HubApiError)) throw error ?? new Error('it was not refused');
  return [error.statusCode, error.message.split('. URL')[0]!];
}

describe("@huggingface/hub's", () => {
  test('snapshotDownload makes a cache of the same files under the names of the Hub', async () => {
    const hub = await hubOf({ xet: false });
    const cacheDir = await temporaryFolder();
    vi.spyOn(console, 'debug').mockImplementation(() => {});
    const snapshot = await snapshotDownload({ repo, hubUrl: hub.endpoint, cacheDir });
    expect(snapshot).toBe(join(cacheDir, 'models--org--name', 'snapshots', repository.refs.get('main')!));
    for (const file of files) {
      expect(await readFile(join(snapshot, file.path))).toEqual(file.content);
      expect((await readlink(join(snapshot, file.path))).split('/').at(-1)).toBe(etagOf(file));
    }
    expect(await readFile(join(cacheDir, 'models--org--name', 'refs', 'main'), 'utf8')).toBe(repository.refs.get('main'));
  });

  test('modelInfo finds the commit of a branch, of a commit, and none', async () => {
    const { endpoint: hubUrl } = await hubOf();
    const [main, stage] = ['main', 'stage1-step10000'].map((name) => repository.refs.get(name)!);
    const shaOf = async (revision: string) => (await modelInfo({ name: repo, revision, hubUrl, additionalFields: ['sha'] })).sha;
    expect(await Promise.all(['main', 'stage1-step10000', main!].map(shaOf))).toEqual([main, stage, main]);
    expect(await refused(shaOf('stage9'))).toEqual([404, 'Invalid rev id: stage9']);
    expect(await refused(modelInfo({ name: 'org/none', hubUrl }))).toEqual([401, 'Invalid username or password.']);
  });

  test('listFiles gives the same entries whatever the size of a page', async () => {
    const listed = async (page_entries: number) => {
      const { endpoint: hubUrl, requests } = await hubOf({ page_entries });
      const entries: ListFileEntry[] = [];
      for await (const entry of listFiles({ repo, hubUrl, recursive: true })) entries.push(entry);
      return { entries, pages: requests.length };
    };
    const [whole, by_two] = [await listed(1000), await listed(2)];
    expect(whole).toMatchObject({ pages: 1 });
    expect(by_two).toEqual({ entries: whole.entries, pages: Math.ceil(whole.entries.length / 2) });
    expect(whole.entries.filter(({ type }) => type === 'directory').map(({ path }) => path)).toEqual(['sub', 'sub/deep']);
    expect(whole.entries.find(({ path }) => path === shard.path)).toMatchObject({
      size: shard.content.byteLength,
      lfs: { oid: createHash('sha256').update(shard.content).digest('hex'), size: shard.content.byteLength },
    });
  });

  test('downloadFile reads ranges of a file of Git LFS from the other host, without the token', async () => {
    const { endpoint: hubUrl, requests } = await hubOf();
    const blob = await downloadFile({ repo, path: shard.path, hubUrl, xet: false, accessToken: 'hf_all' });
    expect(Buffer.from(await blob!.slice(100, 1000).arrayBuffer())).toEqual(shard.content.subarray(100, 1000));
    const [last] = requests.slice(-1);
    expect(last).toMatchObject({ host: 'cdn', status: 206, sent_bytes: 900, path: shard.path });
    expect(requests.filter(({ host, headers }) => (host === 'cdn') === (headers.authorization !== undefined))).toEqual([]);
    expect((await fileDownloadInfo({ repo, path: shard.path, hubUrl }))?.xet?.hash).toHaveLength(64);
    expect(await fileDownloadInfo({ repo, path: 'none.txt', hubUrl })).toBeNull();
  });

  test('credentials decide what is shown', async () => {
    const { endpoint: hubUrl } = await hubOf();
    const info = (name: string, token?: `hf_${string}`) =>
      fileDownloadInfo({ repo: name, path: 'config.json', hubUrl, ...(token ? { accessToken: token } : {}) });
    const restricted = 'Access to model org/gated is restricted';
    expect(await refused(info('org/gated'))).toEqual([
      401,
      `${restricted}. You must have access to it and be authenticated to access it. Please log in.`,
    ]);
    expect(await refused(info('org/gated', 'hf_public'))).toEqual([
      403,
      expect.stringMatching(`${restricted} and you are not in the authorized list`),
    ]);
    expect(await refused(info('org/private'))).toEqual([401, 'Invalid username or password.']);
    expect(await refused(info('org/private', 'hf_public'))).toEqual([404, 'Repository not found']);
    expect(await refused(info(repo, 'hf_unknown'))).toEqual([401, 'Invalid credentials in Authorization header']);
    for (const name of ['org/gated', 'org/private']) expect(await info(name, 'hf_all')).toMatchObject({ size: 2 });
  });
});

describe('a script', () => {
  const read = async (hub: ScriptedHub, range?: string) => {
    const response = await fetch(`${hub.endpoint}/${repo}/resolve/main/${shard.path}`, { headers: range === undefined ? {} : { range } });
    return { status: response.status, headers: response.headers, body: Buffer.from(await response.arrayBuffer()) };
  };

  test('answers by the first rule that fits, as often as the rule says', async () => {
    const hub = await hubOf({
      script: script({ kind: 'cdn', times: 1, fault: status(503) }, { kind: 'cdn', times: 1, fault: flippedBit(5) }),
    });
    expect(await read(hub)).toMatchObject({ status: 503 });
    const { body } = await read(hub, 'bytes=4-7');
    expect([...body]).toEqual([...shard.content.subarray(4, 8)].map((byte, i) => (i === 1 ? byte ^ 1 : byte)));
    expect((await read(hub, 'bytes=-3')).body).toEqual(shard.content.subarray(-3));
    expect(await read(hub, `bytes=${shard.content.byteLength}-`)).toMatchObject({ status: 416 });
  });

  test('cuts a body where it says, and counts what has left', async () => {
    const hub = await hubOf({
      script: script(
        { kind: 'cdn', times: 1, fault: cut(1000, 'reset') },
        { kind: 'cdn', times: 1, fault: cut(900, 'close') },
        { kind: 'cdn', times: 1, fault: cut(800, 'end') },
      ),
    });
    await expect(read(hub)).rejects.toThrow('terminated');
    await expect(read(hub)).rejects.toThrow('terminated');
    expect((await read(hub)).body).toEqual(shard.content.subarray(0, 800));
    expect(hub.requests.filter(({ kind }) => kind === 'cdn').map(({ sent_bytes }) => sent_bytes)).toEqual([1000, 900, 800]);
    hub.script = script({ kind: 'cdn', fault: wholeFile() });
    expect(await read(hub, 'bytes=9-')).toMatchObject({ status: 200, body: shard.content });
  });

  test('a signed URL ends, and the hub signs another', async () => {
    const hub = await hubOf({ signed_url_uses: 1 });
    const location = (await fetch(`${hub.endpoint}/${repo}/resolve/main/${shard.path}`, { redirect: 'manual' })).headers.get('location')!;
    expect([(await fetch(location)).status, (await fetch(location)).status, (await read(hub)).status]).toEqual([200, 403, 200]);
  });
});
