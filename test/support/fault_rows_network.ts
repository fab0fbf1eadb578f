import { expect } from 'vitest';
import { type Row, rangesOf, SHARD, SHARD_BYTES, sentBytes } from './fault_table.ts';
import { announced, captivePortal, cut, flippedBit, header, noAnswer, redirectTo, script, slow, status, wholeFile } from './hub_faults.ts';
import { hubRepository } from './hub_repository.ts';
import type { ScriptedHub } from './scripted_hub.ts';

const file = { kind: 'cdn', path: SHARD } as const;
const HALF = SHARD_BYTES >> 1;
const shut = (access: 'gated' | 'private') => ({
  repositories: [hubRepository('org/name', { main: { 'config.json': '{}' } }, { access })],
});
const once = ({ requests }: { readonly requests: readonly object[] }) => expect(requests).toHaveLength(1);
const inSeconds = (seconds: number) => new Date(Date.now() + 1000 * seconds).toUTCString();
/** The rest was asked for, not the whole again. */
const resumed = ({ requests }: Parameters<NonNullable<Row['check']>>[0]) => {
  expect(rangesOf(requests, SHARD).at(-1)).toBe(`bytes=${HALF}-${SHARD_BYTES - 1}`);
  expect(sentBytes(requests, SHARD)).toBe(SHARD_BYTES);
};

/** Statuses: what passes is repeated a bounded number of times, what does not is told at once. */
export const statuses: readonly Row[] = [
  { fault: '401 for a wrong token', must: 'told at once', token: 'hf_revoked', refused: /HF_TOKEN/, forGood: true, check: once },
  {
    fault: '401 for a private model without a token',
    must: 'told at once',
    token: null,
    hub: shut('private'),
    refused: /HF_TOKEN/,
    forGood: true,
    check: once,
  },
  {
    fault: '404 for a private model of others',
    must: 'told at once',
    token: 'hf_reads_public',
    hub: shut('private'),
    refused: /org\/name/,
    forGood: true,
    check: once,
  },
  {
    fault: '401 for a gated model without a token',
    must: 'says where to ask',
    token: null,
    hub: shut('gated'),
    refused: /Ask for access on http\S+\/org\/name/,
    forGood: true,
  },
  {
    fault: '403 for a gated model',
    must: 'says where to ask',
    token: 'hf_reads_public',
    hub: shut('gated'),
    refused: /Ask for access on http\S+\/org\/name/,
    forGood: true,
  },
  { fault: '403 of a proxy', must: 'told at once', script: () => script({ fault: status(403) }), refused: /status 403/, check: once },
  { fault: '404, no such model', must: 'told at once', id: 'org/none', refused: /org\/none/, forGood: true, check: once },
  { fault: '404, no such revision', must: 'told at once', id: 'org/name@stage9', refused: /stage9/, forGood: true, check: once },
  {
    fault: '404 for a file that is listed',
    must: 'told, file named',
    script: () => script({ kind: 'resolve', path: SHARD, fault: status(404, { 'x-error-code': 'EntryNotFound' }) }),
    refused: new RegExp(SHARD),
  },
  {
    fault: '429 with Retry-After: 1',
    must: 'waits a second',
    script: () => script({ kind: 'revision', times: 1, fault: status(429, { 'retry-after': '1' }) }),
    check: ({ ms, pauses_ms }) => {
      expect(pauses_ms).toEqual([1000]);
      expect(ms).toBeGreaterThanOrEqual(1000);
    },
  },
  {
    fault: '503 with Retry-After as a date',
    must: 'waits until then',
    script: () => script({ ...file, times: 1, fault: (answer) => status(503, { 'retry-after': inSeconds(2) })(answer) }),
    check: ({ ms, pauses_ms: [pause] }) => {
      expect(pause).toBeGreaterThan(900);
      expect(pause).toBeLessThanOrEqual(2000);
      expect(ms).toBeGreaterThanOrEqual(pause!);
    },
  },
  {
    fault: '429 with Retry-After: 3600',
    must: 'does not wait an hour',
    script: () => script({ fault: status(429, { 'retry-after': '3600' }) }),
    refused: /status 429/,
    check: once,
  },
  {
    fault: '429 for ever',
    must: 'pauses grow, then refused',
    script: () => script({ fault: status(429) }),
    refused: /status 429.*5 times/,
    check: ({ requests, pauses_ms }) => {
      expect(requests).toHaveLength(5);
      expect(pauses_ms.at(-1)! / pauses_ms[0]!).toBeGreaterThan(4);
    },
  },
  ...[500, 502, 503, 504, 408].map(
    (code): Row => ({
      fault: `${code} twice, of the Hub`,
      must: 'repeated',
      script: () => script({ kind: 'revision', times: 2, fault: status(code) }),
      check: ({ pauses_ms }) => expect(pauses_ms).toHaveLength(2),
    }),
  ),
  {
    fault: '500 for ever, of the Hub',
    must: 'refused after 5 attempts',
    script: () => script({ fault: status(500) }),
    refused: /status 500.*5 times/,
    check: ({ requests }) => expect(requests).toHaveLength(5),
  },
  { fault: '503 twice, of the other host', must: 'repeated', script: () => script({ ...file, times: 2, fault: status(503) }) },
  {
    fault: '503 for ever, of the other host',
    must: 'bounded, file named',
    script: () => script({ ...file, fault: status(503) }),
    refused: new RegExp(`${SHARD}.*status 503`),
    check: ({ requests }) => expect(requests.filter(({ path }) => path === SHARD).length).toBeLessThanOrEqual(10),
  },
];

const strangerSaw = (hub: ScriptedHub, requests: readonly { readonly host: string; readonly url: string }[]) =>
  requests.filter(({ host, url }) => host === 'cdn' && url.startsWith(new URL(`${hub.cdn}/api`).pathname));

/** Redirects: the token stays with the Hub, and nobody is led around. */
export const redirects: readonly Row[] = [
  {
    fault: 'files of Git LFS on another host',
    must: 'fetched there, without the token',
    check: ({ requests }) => {
      const there = requests.filter(({ host }) => host === 'cdn');
      expect(there.length).toBeGreaterThan(3);
      expect(there.filter(({ headers }) => headers.authorization)).toEqual([]);
      expect(requests.filter(({ host, headers }) => host === 'hub' && !headers.authorization)).toEqual([]);
    },
  },
  {
    fault: 'the API redirects to another host',
    must: 'the token does not follow',
    script: ({ hub }) => script({ kind: 'revision', fault: redirectTo(`${hub.cdn}/api/models/org/name/revision/main`) }),
    refused: /org\/name/,
    check: ({ hub, requests }) => expect(strangerSaw(hub, requests).length).toBeLessThanOrEqual(5),
  },
  {
    fault: 'a redirect to the same host by another name',
    must: 'the token does not follow',
    script: ({ hub }) => script({ kind: 'resolve', path: SHARD, times: 1, fault: redirectTo(hub.cdn.replace('localhost', '127.0.0.1')) }),
    refused: /model-00003/,
  },
  {
    fault: 'a redirect loop',
    must: 'bounded',
    script: ({ hub }) => script({ kind: 'resolve', path: SHARD, fault: redirectTo(`${hub.endpoint}/org/name/resolve/main/${SHARD}`) }),
    refused: /redirects/,
    check: ({ requests }) => expect(requests.filter(({ path }) => path === SHARD).length).toBeLessThanOrEqual(20),
  },
  {
    fault: 'redirects between two hosts',
    must: 'bounded',
    script: ({ hub }) =>
      script(
        { kind: 'resolve', path: SHARD, fault: redirectTo(`${hub.cdn}/back`) },
        { when: ({ url }) => url === '/back', fault: redirectTo(`${hub.endpoint}/org/name/resolve/main/${SHARD}`) },
      ),
    refused: /redirects/,
  },
  {
    fault: 'a redirect to a file of this machine',
    must: 'refused',
    script: () => script({ kind: 'resolve', path: SHARD, fault: redirectTo('file:///etc/passwd') }),
    refused: /redirect/,
  },
  {
    fault: 'a redirect without a target',
    must: 'refused',
    script: () => script({ kind: 'resolve', path: SHARD, fault: status(302) }),
    refused: /model-00003/,
  },
  {
    fault: 'a signed URL that expires in the middle',
    must: 'another is asked for, the rest fetched',
    hub: { signed_url_uses: 1 },
    script: () => script({ ...file, times: 1, fault: cut(HALF, 'reset') }),
    check: resumed,
  },
  {
    fault: '403 for every signed URL',
    must: 'bounded',
    script: () => script({ ...file, fault: status(403) }),
    refused: /status 403/,
    check: ({ requests }) => expect(requests.filter(({ path }) => path === SHARD).length).toBeLessThanOrEqual(20),
  },
];

/** Bodies: what has come is kept, what is wrong is not. */
export const bodies: readonly Row[] = [
  {
    fault: 'a reset in the middle',
    must: 'resumed by range',
    script: () => script({ ...file, times: 1, fault: cut(HALF, 'reset') }),
    check: resumed,
  },
  {
    fault: 'the connection closed in the middle',
    must: 'resumed by range',
    script: () => script({ ...file, times: 1, fault: cut(HALF, 'close') }),
    check: resumed,
  },
  {
    fault: 'a body that ends too soon as if it were whole',
    must: 'resumed by range',
    script: () => script({ ...file, times: 1, fault: cut(HALF, 'end') }),
    check: resumed,
  },
  {
    fault: 'silence in the middle',
    idle_timeout_ms: 200,
    must: 'given up after the idle time, resumed',
    script: () => script({ ...file, times: 1, fault: cut(HALF, 'silence') }),
    check: resumed,
  },
  {
    fault: 'silence in place of an answer',
    idle_timeout_ms: 200,
    must: 'given up after the idle time, repeated',
    script: () => script({ ...file, times: 1, fault: noAnswer('silence') }),
  },
  {
    fault: 'silence for ever',
    idle_timeout_ms: 200,
    must: 'bounded',
    script: () => script({ ...file, fault: cut(0, 'silence') }),
    refused: new RegExp(SHARD),
  },
  { fault: 'a reset in place of an answer', must: 'repeated', script: () => script({ fault: noAnswer('reset'), times: 2 }) },
  {
    fault: 'resets in place of every answer',
    must: 'refused after 5 attempts',
    script: () => script({ fault: noAnswer('reset') }),
    refused: /5 times/,
  },
  {
    fault: 'a reset after every 997 bytes',
    must: 'goes on as long as something comes',
    script: () => script({ ...file, fault: cut(997, 'reset') }),
    check: ({ requests }) => expect(sentBytes(requests, SHARD)).toBe(SHARD_BYTES),
  },
  {
    fault: 'a reset before the first byte, always',
    must: 'bounded',
    script: () => script({ ...file, fault: cut(0, 'reset') }),
    refused: new RegExp(SHARD),
  },
  { fault: '200 kB/s', must: 'waited for', script: () => script({ ...file, fault: slow(200_000) }) },
  { fault: '200 in place of 206', must: 'taken as the whole file', script: () => script({ kind: ['cdn', 'resolve'], fault: wholeFile() }) },
  {
    fault: '200 in place of 206 after a reset',
    must: 'the whole file, the beginning left out',
    script: () => script({ ...file, times: 1, fault: cut(HALF, 'reset') }, { ...file, fault: wholeFile() }),
  },
  {
    fault: 'Content-Length too long by 100',
    must: 'resumed, or refused',
    script: () => script({ ...file, times: 1, fault: announced(100) }),
  },
  { fault: 'Content-Length too short by 100', must: 'resumed', script: () => script({ ...file, times: 1, fault: announced(-100) }) },
  {
    fault: 'another ETag in the middle',
    must: 'the digest decides',
    script: () => script({ ...file, times: 1, fault: cut(HALF, 'reset') }, { ...file, fault: header('etag', '"another"') }),
  },
  {
    fault: 'a file of another size, once',
    must: 'repeated',
    script: () => script({ ...file, times: 1, fault: header('content-range', `bytes 0-${SHARD_BYTES - 1}/${SHARD_BYTES + 1}`) }),
  },
  {
    fault: 'a file of another size, always',
    must: 'bounded',
    script: () => script({ ...file, fault: header('content-range', `bytes 0-${SHARD_BYTES - 1}/${SHARD_BYTES + 1}`) }),
    refused: new RegExp(SHARD),
  },
  {
    fault: 'Content-Range of another place, once',
    must: 'repeated',
    script: () => script({ ...file, times: 1, fault: header('content-range', `bytes 7-${SHARD_BYTES + 6}/${SHARD_BYTES}`) }),
  },
  {
    fault: 'Content-Range that is none',
    must: 'bounded',
    script: () => script({ ...file, fault: header('content-range', 'bytes') }),
    refused: new RegExp(SHARD),
  },
  {
    fault: 'one bit wrong, once',
    must: 'found by sha256, fetched anew',
    script: () => script({ ...file, times: 1, fault: flippedBit(HALF) }),
    check: ({ requests }) => expect(sentBytes(requests, SHARD)).toBe(2 * SHARD_BYTES),
  },
  {
    fault: 'one bit wrong, always',
    must: 'refused, nothing kept',
    script: () => script({ ...file, fault: flippedBit(HALF) }),
    refused: /digest/,
    check: ({ requests }) => expect(sentBytes(requests, SHARD)).toBe(2 * SHARD_BYTES),
  },
  {
    fault: 'one bit wrong in a file of git',
    must: "found by git's digest",
    script: () => script({ kind: 'resolve', path: 'config.json', fault: flippedBit(9) }),
    refused: /config\.json.*digest/,
  },
  {
    fault: 'the login page of a network, for a file',
    must: 'refused as another file',
    script: () => script({ ...file, fault: captivePortal() }),
    refused: new RegExp(`${SHARD}.*text/html`),
  },
  {
    fault: 'the login page of a network, for the API',
    must: 'refused as no JSON',
    script: () => script({ kind: ['revision', 'tree'], fault: captivePortal() }),
    refused: /text\/html.*not JSON/,
  },
];
