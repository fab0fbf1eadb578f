import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { text as textOf } from 'node:stream/consumers';
import { type Answer, type HubRequest, json, ranged, refusal, send } from './hub_answer.ts';
import { etagOf, type HubFile, type HubRepository, lfsPointer } from './hub_repository.ts';

/** What makes a wrong answer of a right one. */
export type Fault = (answer: Answer) => Answer;
/** Decides for each request whether it is answered wrongly. */
export type Script = (request: HubRequest) => Fault | undefined;

export interface HubOptions {
  readonly repositories: readonly HubRepository[];
  readonly script?: Script;
  /** A token that is known, and whether its user is on the lists of the gated repositories. Others are refused. */
  readonly tokens?: Readonly<Record<string, 'reads public' | 'reads all'>>;
  /** Entries in a page of a listing. Default 1000, as on the Hub. */
  readonly page_entries?: number;
  /** How often the signed URL of a file works before it has expired. Default: for ever. */
  readonly signed_url_uses?: number;
  /** Whether files of Git LFS are offered by the Xet protocol too, which this hub does not speak. Default true, as on the Hub. */
  readonly xet?: boolean;
  /** Of every body. Default: as fast as it goes. */
  readonly bytes_per_second?: number;
}

/** A Hub on 127.0.0.1 with a second host for the files of Git LFS, and what was asked of both. */
export interface ScriptedHub {
  /** For HF_ENDPOINT. */
  readonly endpoint: string;
  readonly cdn: string;
  readonly requests: HubRequest[];
  /** Replaces the script. */
  script: Script | undefined;
  close(): Promise<void>;
}

/** Serves repositories as huggingface.co does, but for what the script says. */
export async function startScriptedHub(options: HubOptions): Promise<ScriptedHub> {
  const requests: HubRequest[] = [];
  const servers = { hub: createServer(), cdn: createServer() };
  const endpoint = await listening(servers.hub, '127.0.0.1');
  const cdn = await listening(servers.cdn, 'localhost');
  const content = new HubContent(options, endpoint, cdn);
  const hub: ScriptedHub = { endpoint, cdn, requests, script: options.script, close };

  for (const host of ['hub', 'cdn'] as const) {
    servers[host].on('request', (incoming: IncomingMessage, response: ServerResponse) => {
      response.on('error', () => {}); // who asked may be gone
      void answer(host, incoming, response).catch((error: unknown) => response.destroy(error as Error));
    });
  }
  return hub;

  async function answer(host: 'hub' | 'cdn', incoming: IncomingMessage, response: ServerResponse): Promise<void> {
    const { method = '', url = '', headers } = incoming;
    const at_ms = performance.now();
    const posted = method === 'POST' ? await textOf(incoming) : '';
    const { right, kind, path } = host === 'cdn' ? content.cdnAnswer(url, headers) : content.hubAnswer(method, url, headers, posted);
    const request: HubRequest = { host, method, url, headers, kind, path, at_ms, status: 0, sent_bytes: 0 };
    requests.push(request);
    const throttled = options.bytes_per_second === undefined ? right : { ...right, bytes_per_second: options.bytes_per_second };
    await send(response, request, hub.script?.(request)?.(throttled) ?? throttled);
  }

  async function close(): Promise<void> {
    for (const server of Object.values(servers)) {
      const closed = new Promise((resolve) => server.close(resolve));
      server.closeAllConnections();
      await closed;
    }
  }
}

interface Routed {
  readonly right: Answer;
  readonly kind: HubRequest['kind'];
  readonly path: string;
}

type Headers = IncomingMessage['headers'];
/** A repository at a commit. */
interface Place {
  readonly repository: HubRepository;
  readonly commit: string;
  readonly files: readonly HubFile[];
  /** What stands behind the revision in the URL. */
  readonly rest: string;
}

/** The right answers. */
class HubContent {
  readonly #options: HubOptions;
  readonly #endpoint: string;
  readonly #cdn: string;
  /** Files that signed URLs lead to, and how often they were used. */
  readonly #signed: { readonly file: HubFile; uses: number }[] = [];

  constructor(options: HubOptions, endpoint: string, cdn: string) {
    this.#options = options;
    this.#endpoint = endpoint;
    this.#cdn = cdn;
  }

  hubAnswer(method: string, url: string, headers: Headers, posted: string): Routed {
    const { pathname, query } = split(url);
    const routes: readonly (readonly [HubRequest['kind'], string, RegExp])[] = [
      ['revision', 'GET', /^\/api\/models\/([^/]+\/[^/]+)(?:\/revision\/(.+))?$/],
      ['tree', 'GET', /^\/api\/models\/([^/]+\/[^/]+)\/tree\/(.+)$/],
      ['paths-info', 'POST', /^\/api\/models\/([^/]+\/[^/]+)\/paths-info\/(.+)$/],
      ['resolve', 'GET', /^\/api\/resolve-cache\/models\/([^/]+\/[^/]+)\/(.+)$/],
      ['resolve', 'GET', /^\/([^/]+\/[^/]+)\/resolve\/(.+)$/],
    ];
    for (const [kind, verb, pattern] of routes) {
      const [, id, at = 'main'] = pattern.exec(pathname) ?? [];
      if (id === undefined || (method === 'HEAD' ? 'GET' : method) !== verb) continue;
      const place = this.#placeOf(id, at, headers, kind === 'resolve');
      const path = 'rest' in place ? place.rest : '';
      const cached = pathname.startsWith('/api/');
      const right = !('rest' in place)
        ? place
        : kind === 'revision'
          ? this.#revision(place, query)
          : kind === 'tree'
            ? this.#tree(place, pathname, query)
            : kind === 'paths-info'
              ? pathsInfo(place, posted)
              : this.#resolve(place, headers, cached);
      return { right, kind, path };
    }
    return { right: refusal(404, null, 'Not found'), kind: 'unknown', path: '' };
  }

  /** Signed URLs are for whoever has them, for a while; a token beside the signature is one credential too many. */
  cdnAnswer(url: string, headers: Headers): Routed {
    const { query } = split(url);
    const signed = this.#signed[Number(query.get('Signature') ?? Number.NaN)];
    const path = signed?.file.path ?? '';
    const denied = (status: number, why: string): Routed => {
      const body = Buffer.from(`<?xml version="1.0"?><Error><Code>${why}</Code></Error>`);
      const headers = { 'content-type': 'application/xml', 'content-length': `${body.byteLength}` };
      return { right: { status, headers, body }, kind: 'cdn', path };
    };
    if (headers.authorization !== undefined) return denied(400, 'InvalidArgument');
    if (!signed || signed.uses >= (this.#options.signed_url_uses ?? Number.POSITIVE_INFINITY)) return denied(403, 'AccessDenied');
    signed.uses += 1;
    // Not the sha256: each host has ETags of its own.
    const etag = `"cdn-${signed.file.oid.slice(0, 16)}"`;
    const right = ranged(signed.file.content, headers.range, { etag, 'content-type': 'application/octet-stream' });
    return { right, kind: 'cdn', path };
  }

  /** The repository and commit of a URL, or why they are not shown. */
  #placeOf(id: string, at: string, headers: Headers, reads: boolean): Place | Answer {
    const token = /^Bearer (.+)$/.exec(headers.authorization ?? '')?.[1];
    const rights = token === undefined ? undefined : this.#options.tokens?.[token];
    if (token !== undefined && rights === undefined) return refusal(401, null, 'Invalid credentials in Authorization header');
    const repository = this.#options.repositories.find((repository) => repository.id === id);
    if (!repository || (repository.access === 'private' && rights !== 'reads all')) {
      return rights === undefined
        ? refusal(401, 'RepoNotFound', 'Invalid username or password.')
        : refusal(404, 'RepoNotFound', 'Repository not found');
    }
    if (repository.access === 'gated' && reads && rights !== 'reads all') {
      const restricted = `Access to model ${id} is restricted`;
      return rights === undefined
        ? refusal(401, 'GatedRepo', `${restricted}. You must have access to it and be authenticated to access it. Please log in.`)
        : refusal(
            403,
            'GatedRepo',
            `${restricted} and you are not in the authorized list. Visit ${this.#endpoint}/${id} to ask for access.`,
          );
    }
    const text = decodeURIComponent(at);
    const names = [...repository.refs.keys(), ...repository.commits.keys(), 'HEAD'].sort((a, b) => b.length - a.length);
    const revision = names.find((name) => text === name || text.startsWith(`${name}/`));
    if (revision === undefined) return refusal(404, 'RevisionNotFound', `Invalid rev id: ${text.split('/')[0]}`);
    const commit = repository.refs.get(revision === 'HEAD' ? 'main' : revision) ?? revision;
    return { repository, commit, files: repository.commits.get(commit)!, rest: text.slice(revision.length + 1) };
  }

  #revision({ repository: { id, access, commits, refs }, commit, files }: Place, query: URLSearchParams): Answer {
    const blobs = query.get('blobs') !== null && query.get('blobs') !== 'False';
    const facts: Record<string, unknown> = {
      author: id.split('/')[0],
      sha: commit,
      lastModified: '2026-01-01T00:00:00.000Z',
      createdAt: '2026-01-01T00:00:00.000Z',
      private: access === 'private',
      gated: access === 'gated' ? 'manual' : false,
      disabled: false,
      downloads: 0,
      likes: 0,
      tags: [],
      pipeline_tag: 'text-generation',
      library_name: 'transformers',
      usedStorage: [...commits.values()].flat().reduce((bytes, { content }) => bytes + content.byteLength, 0),
      siblings: files.map((file) => ({
        rfilename: file.path,
        ...(blobs ? { size: file.content.byteLength, blobId: file.oid, lfs: lfsOf(file) } : {}),
      })),
    };
    const asked = query.getAll('expand');
    const shown = asked.length === 0 ? facts : Object.fromEntries(asked.map((name) => [name, facts[name]]));
    return json({ _id: [...refs.values()][0]!.slice(0, 24), id, modelId: id, ...shown });
  }

  #tree({ files, rest }: Place, pathname: string, query: URLSearchParams): Answer {
    const recursive = /^(true|1)$/i.test(query.get('recursive') ?? '');
    const below = files.filter(({ path }) => rest === '' || path.startsWith(`${rest}/`));
    const folders = new Set(
      below.flatMap(({ path }) =>
        path
          .split('/')
          .slice(0, -1)
          .map((_, i, parts) => parts.slice(0, i + 1).join('/')),
      ),
    );
    const all = [
      ...[...folders].map((path) => ({ type: 'directory', oid: '0'.repeat(40), size: 0, path })),
      ...below.map((file) => this.#entry(file)),
    ].filter(({ path }) => path !== rest && (recursive || !path.slice(rest === '' ? 0 : rest.length + 1).includes('/')));
    const begin = Number(query.get('cursor') ?? 0);
    const end = begin + (this.#options.page_entries ?? 1000);
    const next = new URLSearchParams([...query].filter(([name]) => name !== 'cursor').concat([['cursor', `${end}`]]));
    const link = end < all.length ? { link: `<${this.#endpoint}${pathname}?${next}>; rel="next"` } : {};
    return json(all.slice(begin, end), link);
  }

  #entry(file: HubFile): { readonly path: string; readonly [key: string]: unknown } {
    const xetHash = file.sha256 !== null && this.#options.xet !== false ? { xetHash: xetHashOf(file.sha256) } : {};
    return { type: 'file', oid: file.oid, size: file.content.byteLength, path: file.path, ...lfsOf(file, true), ...xetHash };
  }

  /** Files of git come from a cache of the Hub itself, those of Git LFS from another host. */
  #resolve({ repository, commit, files, rest }: Place, headers: Headers, cached: boolean): Answer {
    const x_repo_commit = { 'x-repo-commit': commit };
    const file = files.find(({ path }) => path === rest);
    if (!file) {
      const refused = refusal(404, 'EntryNotFound', 'Entry not found');
      return { ...refused, headers: { ...refused.headers, ...x_repo_commit } };
    }
    const etag = `"${etagOf(file)}"`;
    const linked = { 'x-linked-etag': etag, 'x-linked-size': `${file.content.byteLength}`, ...x_repo_commit };
    if (file.sha256 === null) {
      if (cached) return ranged(file.content, headers.range, { etag, 'content-type': 'text/plain; charset=utf-8', ...x_repo_commit });
      const location = `/api/resolve-cache/models/${repository.id}/${commit}/${encodeURI(rest)}?etag=${encodeURIComponent(etag)}`;
      return redirect(307, location, linked);
    }
    const xet_hash = xetHashOf(file.sha256);
    const auth = `${this.#endpoint}/api/models/${repository.id}/xet-read-token/${commit}`;
    const xet = {
      'x-xet-hash': xet_hash,
      link: `<${auth}>; rel="xet-auth", <${this.#endpoint}/reconstruct/${xet_hash}>; rel="xet-reconstruction-info"`,
    };
    const offered = this.#options.xet === false ? linked : { ...linked, ...xet };
    if (this.#options.xet !== false && /application\/vnd\.xet-fileinfo\+json/.test(headers.accept ?? '')) {
      return json({ hash: xet_hash }, { ...offered, etag, 'content-type': 'application/vnd.xet-fileinfo+json' });
    }
    const signature = this.#signed.push({ file, uses: 0 }) - 1;
    const location = `${this.#cdn}/repos/${repository.id}/${file.sha256}?response-content-disposition=inline&Expires=4102444800&Signature=${signature}`;
    return redirect(302, location, offered);
  }
}

function pathsInfo({ files, commit }: Place, posted: string): Answer {
  const { paths, expand } = JSON.parse(posted) as { paths: string[]; expand?: boolean };
  const lastCommit = { id: commit, title: 'Upload', date: '2026-01-01T00:00:00.000Z' };
  const asked = files.filter(({ path }) => paths.includes(path));
  return json(
    asked.map((file) => ({
      type: 'file',
      path: file.path,
      oid: file.oid,
      size: file.content.byteLength,
      ...lfsOf(file, true),
      ...(expand ? { lastCommit, securityFileStatus: { status: 'safe', avScan: null, pickleImportScan: null } } : {}),
    })),
  );
}

/** What listings say of Git LFS. */
function lfsOf({ sha256, content }: HubFile, named = false): object {
  if (sha256 === null) return {};
  const facts = { size: content.byteLength, pointerSize: lfsPointer(sha256, content.byteLength).length };
  return named ? { lfs: { oid: sha256, ...facts } } : { sha256, ...facts };
}

/** A name of 64 hexadecimal digits that is not the sha256: it is computed by chunks on the Hub. */
function xetHashOf(sha256: string): string {
  return [...sha256].reverse().join('');
}

function redirect(status: number, location: string, headers: Readonly<Record<string, string>>): Answer {
  const body = Buffer.from(`Redirecting to ${location}`);
  return { status, headers: { location, 'content-type': 'text/plain', 'content-length': `${body.byteLength}`, ...headers }, body };
}

function split(url: string): { pathname: string; query: URLSearchParams } {
  const [pathname = '', query = ''] = url.split('?');
  return { pathname, query: new URLSearchParams(query) };
}

async function listening(server: Server, host: string): Promise<string> {
  await new Promise<void>((resolve, reject) => server.once('error', reject).listen(0, host, resolve));
  return `http://${host}:${(server.address() as AddressInfo).port}`;
}
