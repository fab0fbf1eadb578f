import { execFile } from 'node:child_process';
import { deepStrictEqual } from 'node:assert';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { cacheFaults, repositoryFolder } from '../support/hub_cache.ts';
import { filesOf, hubRepository } from '../support/hub_repository.ts';
import { startPull } from '../support/pull_process.ts';
import { startScriptedHub } from '../support/scripted_hub.ts';

// One cache, two programs: what ours downloads Python's huggingface_hub and transformers read without a request, and the other way round, whole and
// broken off. npm run test:python-hub -- PYTHON, in whose environment golden/requirements.txt is installed.
const [python = 'python3'] = process.argv.slice(2);
const root = new URL('../../../', import.meta.url);
const MAIN = fileURLToPath(new URL('dist/cli/main.js', root));
const SCRIPT = fileURLToPath(new URL('golden/hub_python.py', root));
const sharded = filesOf(fileURLToPath(new URL('golden/models/sharded', root)), (path) => path !== 'expected.safetensors');
const tokenizer = { 'tokenizer.json': readFileSync(new URL('golden/tokenizer/tokenizer.json', root)) };
const SHARD = 'model-00001-of-00003.safetensors';
const REVISION = 'stage1-step10000';

const model = hubRepository(
  'org/name',
  { main: { ...sharded, ...tokenizer }, [REVISION]: sharded },
  { lfs: (path) => /safetensors$|^tokenizer\.json$/.test(path) },
);
const hub = await startScriptedHub({ repositories: [model] });
const work = mkdtempSync(join(tmpdir(), 'olmo-hybrid-'));
const OFFLINE = { HF_HUB_OFFLINE: '1' };

interface Read {
  readonly snapshot: string;
  readonly files: Readonly<Record<string, string>>;
  readonly [fact: string]: unknown;
}

function variables(cache: string): Record<string, string> {
  return {
    HF_ENDPOINT: hub.endpoint,
    HF_HUB_CACHE: cache,
    HF_HOME: join(work, 'home'),
    HF_HUB_DISABLE_XET: '1',
    HF_HUB_DISABLE_PROGRESS_BARS: '1',
  };
}

async function pythons(cache: string, env: Readonly<Record<string, string>>, ...args: string[]): Promise<Read> {
  const { stdout } = await promisify(execFile)(python, [SCRIPT, ...args], { env: { ...process.env, ...variables(cache), ...env } });
  return JSON.parse(stdout.trim().split('\n').at(-1)!) as Read;
}

/** The folder that ours prints. */
async function ours(cache: string, revision: string, env: Readonly<Record<string, string>> = {}): Promise<string> {
  const { code, stdout, stderr } = await startPull(MAIN, `org/name@${revision}`, { ...variables(cache), ...env }).ended;
  if (code !== 0) throw new Error(`pull ended with ${code}: ${stderr}`);
  return stdout.trim();
}

const snapshot = (cache: string, revision: string) => join(repositoryFolder(cache, 'org/name'), 'snapshots', model.refs.get(revision)!);

/** What Python must find at a revision, offline. */
async function readByPython(cache: string, revision: string): Promise<void> {
  const files = model.commits.get(model.refs.get(revision)!)!;
  const requests = hub.requests.length;
  const found = await pythons(cache, OFFLINE, 'read', 'org/name', revision, ...files.map(({ path }) => path));
  deepStrictEqual(found, {
    snapshot: snapshot(cache, revision),
    files: Object.fromEntries(files.map(({ path }) => [path, join(snapshot(cache, revision), path)])),
    warnings: [],
    refs: Object.fromEntries(model.refs),
    scanned: Object.fromEntries(files.map(({ path, content }) => [path, content.byteLength])),
    model_type: 'olmo_hybrid',
    loading: {},
    logits_are_finite: true,
    vocabulary: 97,
  });
  deepStrictEqual([hub.requests.length - requests, cacheFaults(cache, [model])], [0, []]);
}

/** What ours must find at a revision: offline at once, online with no file to fetch. */
async function readByOurs(cache: string, revision: string): Promise<void> {
  const requests = hub.requests.length;
  const { stdout } = await promisify(execFile)(process.execPath, [MAIN, 'inspect', '--json', '--model', `org/name@${revision}`], {
    env: { ...process.env, ...variables(cache), ...OFFLINE },
  });
  deepStrictEqual([(JSON.parse(stdout) as { parameters: number }).parameters, hub.requests.length - requests], [64_052, 0]);
  deepStrictEqual(await ours(cache, revision), snapshot(cache, revision));
  deepStrictEqual(
    hub.requests.slice(requests).map(({ kind }) => kind),
    ['revision', 'tree'],
  );
  deepStrictEqual(cacheFaults(cache, [model]), []);
}

const checks: Readonly<Record<string, (cache: string) => Promise<void>>> = {
  'ours downloads, Python reads offline': async (cache) => {
    for (const revision of model.refs.keys()) deepStrictEqual(await ours(cache, revision), snapshot(cache, revision));
    for (const revision of model.refs.keys()) await readByPython(cache, revision);
  },
  'Python downloads, ours reads offline': async (cache) => {
    for (const revision of model.refs.keys()) await pythons(cache, {}, 'fetch', 'org/name', revision);
    for (const revision of model.refs.keys()) await readByOurs(cache, revision);
  },
  'ours is killed in a shard, Python finishes, both read': async (cache) => {
    hub.script = ({ kind, path }) => (kind === 'cdn' && path === SHARD ? (answer) => ({ ...answer, bytes_per_second: 40_000 }) : undefined);
    const process = startPull(MAIN, `org/name@${REVISION}`, variables(cache));
    const sent = () => hub.requests.slice(requests).find(({ kind, path }) => kind === 'cdn' && path === SHARD)?.sent_bytes ?? 0;
    const requests = hub.requests.length;
    while (sent() < 20_000) await pause(5);
    process.kill('SIGKILL');
    await process.ended;
    hub.script = undefined;
    deepStrictEqual(cacheFaults(cache, [model]), []);
    for (const revision of model.refs.keys()) await pythons(cache, {}, 'fetch', 'org/name', revision);
    for (const revision of model.refs.keys()) await readByOurs(cache, revision);
    for (const revision of model.refs.keys()) await readByPython(cache, revision);
  },
  'Python has one revision, ours fetches what is new in the other, both read': async (cache) => {
    await pythons(cache, {}, 'fetch', 'org/name', REVISION);
    const requests = hub.requests.length;
    await ours(cache, 'main');
    deepStrictEqual([...new Set(hub.requests.slice(requests).map(({ path }) => path))], ['', 'tokenizer.json']);
    for (const revision of model.refs.keys()) await readByPython(cache, revision);
    for (const revision of model.refs.keys()) await readByOurs(cache, revision);
  },
};

try {
  for (const [i, [name, check]] of Object.entries(checks).entries()) {
    await check(join(work, `${i}`)).then(
      () => console.log(`ok    ${name}`),
      (error: Error) => {
        console.log(`WRONG ${name}\n${error.message}`);
        process.exitCode = 1;
      },
    );
  }
} finally {
  await hub.close();
  rmSync(work, { recursive: true });
}
