import { existsSync, readdirSync, statSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import type { HubRequest } from './hub_answer.ts';
import { cacheFaults, repositoryFolder, snapshotOf } from './hub_cache.ts';
import { cut } from './hub_faults.ts';
import { etagOf, type HubRepository, hubRepository } from './hub_repository.ts';
import { type PullProcess, startPull } from './pull_process.ts';
import { type Fault, type ScriptedHub, startScriptedHub } from './scripted_hub.ts';

// Downloads that are broken off, each from a repository and into a cache of its own, taken up again, and looked at each time. A seed decides where.

/** By SIGKILL, by the server, or two processes at once, of which one may be killed. */
export type Way = 'killed' | 'cut' | 'raced';
/** How far a process was when it was killed. */
export const MOMENTS = [
  'before the first byte',
  'between the first and the last',
  'after the last, not all in place',
  'all in place',
  'after its end',
] as const;
export type Moment = (typeof MOMENTS)[number];

export interface BrokenDownload {
  readonly seed: number;
  readonly way: Way;
  /** Of each kill. */
  readonly moments: Moment[];
  cuts: number;
  /** Bytes of files that have left the server. */
  sent_bytes: number;
  readonly bytes: number;
  /** What is wrong; nothing, if all is as it must be. */
  readonly wrong: string[];
}

export interface BreakOptions {
  /** dist/cli/main.js. */
  readonly main: string;
  readonly seeds: readonly number[];
  readonly wayOf: (seed: number) => Way;
  /** Of model.safetensors. */
  readonly bytesOf: (seed: number) => number;
  readonly bytes_per_second: number;
  /** Downloads at a time: most of their time goes by in waiting. */
  readonly parallel: number;
  /** Pulls what is only cut, in the place of a process. */
  readonly pull?: (endpoint: string, cache: string, id: string) => Promise<unknown>;
  readonly onEnd?: (download: BrokenDownload) => void;
}

export async function breakDownloads(options: BreakOptions): Promise<BrokenDownload[]> {
  const { seeds, bytesOf, bytes_per_second, parallel, onEnd } = options;
  const models = new Map([...new Set(seeds.map(bytesOf))].map((bytes) => [bytes, randomModel(bytes)]));
  const repositories = seeds.map((seed) => ({ ...models.get(bytesOf(seed))!, id: `seed/${seed}` }));
  const hub = await startScriptedHub({ repositories, bytes_per_second });
  const runs = repositories.map((repository, i) => new Run(hub, repository, seeds[i]!, options));
  const queue = [...runs];
  hub.script = (request) => runs.find(({ path }) => request.url.includes(path))?.faultOf(request);
  const worker = async () => {
    for (let run = queue.shift(); run; run = queue.shift()) {
      await run.run();
      onEnd?.(run.result);
    }
  };
  try {
    await Promise.all(Array.from({ length: parallel }, worker));
  } finally {
    await hub.close();
  }
  return runs.map(({ result }) => result);
}

class Run {
  readonly result: BrokenDownload;
  readonly path: string;
  readonly #hub: ScriptedHub;
  readonly #repository: HubRepository;
  readonly #options: BreakOptions;
  readonly #random: () => number;
  readonly #requests: HubRequest[] = [];
  #cuts_left = 0;
  /** Bytes that a reset may have taken from the client after they had left. */
  #lost_bytes = 0;
  #cache = '';

  constructor(hub: ScriptedHub, repository: HubRepository, seed: number, options: BreakOptions) {
    const bytes = [...repository.commits.values()].flat().reduce((sum, { content }) => sum + content.byteLength, 0);
    this.result = { seed, way: options.wayOf(seed), moments: [], cuts: 0, sent_bytes: 0, bytes, wrong: [] };
    this.path = `/${repository.id}/`;
    this.#hub = hub;
    this.#repository = repository;
    this.#options = options;
    this.#random = randomNumbers(seed);
  }

  faultOf(request: HubRequest): Fault | undefined {
    this.#requests.push(request);
    if (request.kind !== 'cdn' || this.#cuts_left === 0) return undefined;
    this.#cuts_left -= 1;
    const how = (['reset', 'close', 'end'] as const)[Math.floor(3 * this.#random())]!;
    const share = this.#random();
    return (answer) => {
      const after_bytes = Math.floor(share * answer.body.byteLength);
      this.result.cuts += 1;
      if (how === 'reset') this.#lost_bytes += after_bytes;
      return cut(after_bytes, how)(answer);
    };
  }

  async run(): Promise<void> {
    const folder = await mkdtemp(join(tmpdir(), 'olmo-hybrid-'));
    this.#cache = join(folder, 'cache');
    try {
      if (this.result.way === 'killed') await this.#killed();
      else if (this.result.way === 'cut') await this.#cut();
      else await this.#raced();
      this.#look(true);
      this.result.sent_bytes = this.#sent();
    } catch (error) {
      this.result.wrong.push(String(error));
    } finally {
      await rm(folder, { recursive: true });
    }
  }

  /** Killed once, twice or three times; the last pull fetches what is not there and nothing else. */
  async #killed(): Promise<void> {
    const kills = 1 + Number(this.#random() < 0.3) + Number(this.#random() < 0.1);
    for (let i = 0; i < kills; i++) {
      await this.#kill(this.#start());
      this.#look(false);
    }
    const [kept, sent] = [this.#kept(), this.#sent()];
    await this.#ends(this.#start());
    const fetched = this.#sent() - sent;
    if (fetched !== this.result.bytes - kept)
      this.result.wrong.push(`${fetched} bytes were fetched where ${kept} of ${this.result.bytes} were there`);
  }

  async #cut(): Promise<void> {
    this.#cuts_left = 1 + Math.floor(3 * this.#random());
    const { pull } = this.#options;
    if (pull) await pull(this.#hub.endpoint, this.#cache, this.#repository.id);
    else await this.#ends(this.#start());
    const most = this.result.bytes + this.#lost_bytes;
    if (this.#sent() > most) this.result.wrong.push(`${this.#sent()} bytes were fetched, ${most} had been enough`);
  }

  /** Two processes; one is killed, or none. */
  async #raced(): Promise<void> {
    const [first, second] = [this.#start(), this.#start()];
    const killing = this.#random() < 0.5;
    if (killing) await this.#kill(first);
    else await this.#ends(first);
    await this.#ends(second);
    if (!killing && this.#sent() !== this.result.bytes)
      this.result.wrong.push(`${this.#sent()} bytes were fetched by two, not ${this.result.bytes}`);
  }

  #start(): PullProcess {
    return startPull(this.#options.main, this.#repository.id, { HF_ENDPOINT: this.#hub.endpoint, HF_HUB_CACHE: this.#cache });
  }

  async #ends(process: PullProcess): Promise<void> {
    const { code, stdout, stderr } = await process.ended;
    const expected = join(repositoryFolder(this.#cache, this.#repository.id), 'snapshots', this.#repository.refs.get('main')!);
    if (code !== 0 || stdout !== `${expected}\n`) this.result.wrong.push(`it ended with ${code}: ${stdout}${stderr}`);
  }

  /** Kills a process at a random point: soon, when so many bytes have left the server, or a while after the last. */
  async #kill(process: PullProcess): Promise<void> {
    const [kept, before] = [this.#kept(), this.#sent()];
    const remaining = this.result.bytes - kept;
    const where = this.#random();
    const bytes = where < 0.1 ? 0 : where < 0.8 ? Math.floor(this.#random() * remaining) : remaining;
    const delay_ms = this.#random() * (where < 0.1 ? 300 : where < 0.8 ? 5 : 40);
    while (process.running() && this.#sent() - before < bytes) await pause(2);
    await pause(delay_ms);
    process.kill('SIGKILL');
    const { code } = await process.ended;
    const sent = this.#sent() - before;
    const last = this.#inPlace() ? 'all in place' : 'after the last, not all in place';
    const moment = sent < remaining ? 'between the first and the last' : last;
    this.result.moments.push(code !== null ? 'after its end' : sent === 0 && remaining > 0 ? 'before the first byte' : moment);
  }

  /** Looks for what must never be, and at the end for what must be. */
  #look(end: boolean): void {
    const { wrong } = this.result;
    wrong.push(...cacheFaults(this.#cache, [this.#repository]));
    if (!end) return;
    if (!this.#inPlace()) wrong.push('not all of it is there');
    const blobs = readdirSync(join(repositoryFolder(this.#cache, this.#repository.id), 'blobs'));
    wrong.push(...blobs.filter((name) => name.includes('.')).map((name) => `${name} was left`));
  }

  #inPlace(): boolean {
    const snapshot = snapshotOf(this.#cache, this.#repository);
    return snapshot !== null && this.#files().every(({ path, content }) => snapshot[path]?.equals(content));
  }

  #files() {
    return [...this.#repository.commits.values()].flat();
  }

  /** Bytes of files that need not be fetched again. */
  #kept(): number {
    const blobs = join(repositoryFolder(this.#cache, this.#repository.id), 'blobs');
    const paths = this.#files().flatMap((file) => [join(blobs, etagOf(file)), join(blobs, `${etagOf(file)}.olmo-hybrid.incomplete`)]);
    return paths.reduce((sum, path) => sum + (existsSync(path) ? statSync(path).size : 0), 0);
  }

  #sent(): number {
    const bodies = this.#requests.filter(
      ({ kind, status }) => (kind === 'cdn' || kind === 'resolve') && (status === 200 || status === 206),
    );
    return bodies.reduce((sum, { sent_bytes }) => sum + sent_bytes, 0);
  }
}

/** A model whose weights nobody reads. */
function randomModel(bytes: number): HubRepository {
  const random = randomNumbers(bytes);
  const content = new Uint32Array((bytes + 3) >> 2).map(() => random() * 2 ** 32);
  const main = { 'config.json': '{}', 'tokenizer.json': '{"model":{}}', 'model.safetensors': new Uint8Array(content.buffer, 0, bytes) };
  return hubRepository('seed/model', { main });
}

/** Uniform in [0, 1): the counter of SplitMix with the 32-bit finalizer of MurmurHash3. */
function randomNumbers(seed: number): () => number {
  let state = Math.imul(seed, 0x9e3779b9);
  return () => {
    state = (state + 0x9e3779b9) | 0;
    let x = state;
    x = Math.imul(x ^ (x >>> 16), 0x85ebca6b);
    x = Math.imul(x ^ (x >>> 13), 0xc2b2ae35);
    return ((x ^ (x >>> 16)) >>> 0) / 2 ** 32;
  };
}
