import type { IncomingHttpHeaders, ServerResponse } from 'node:http';
import { setTimeout as pause } from 'node:timers/promises';

/** A request as the scripted hub has seen it. */
export interface HubRequest {
  /** The Hub itself, or the host that it redirects to for files of Git LFS. */
  readonly host: 'hub' | 'cdn';
  readonly method: string;
  /** Path and query. */
  readonly url: string;
  readonly headers: IncomingHttpHeaders;
  readonly kind: 'revision' | 'tree' | 'paths-info' | 'resolve' | 'cdn' | 'unknown';
  /** File of the repository that is asked for, by `resolve` or `cdn`; else ''. */
  readonly path: string;
  readonly at_ms: number;
  /** What was answered. */
  status: number;
  /** Bytes of the body that have left so far. */
  sent_bytes: number;
}

/** What is sent. A fault makes another of it. */
export interface Answer {
  /** 0: nothing is answered, not even headers. */
  readonly status: number;
  readonly headers: Readonly<Record<string, string>>;
  readonly body: Uint8Array;
  /** The whole file that the body is all or a part of. */
  readonly file?: Uint8Array;
  /** After so many bytes of the body: the connection is reset, ends as if all were sent, or is silent. */
  readonly stop?: { readonly after_bytes: number; readonly how: 'reset' | 'end' | 'silence' };
  readonly bytes_per_second?: number;
}

/** Times in a second that a slow answer sends something. */
const TICKS = 50;

/** Sends an answer, as broken as it is. */
export async function send(response: ServerResponse, request: HubRequest, answer: Answer): Promise<void> {
  const { status, headers, stop, bytes_per_second = Number.POSITIVE_INFINITY } = answer;
  const body = request.method === 'HEAD' ? new Uint8Array() : answer.body.subarray(0, stop?.after_bytes);
  const length = headers['content-length'];
  const wrong = (length !== undefined && Number(length) !== answer.body.byteLength) || stop !== undefined;
  request.status = status;
  if (status === 0) {
    if (stop?.how !== 'silence') response.socket?.resetAndDestroy();
    return;
  }
  response.writeHead(status, { ...headers, ...(wrong ? { connection: 'close' } : {}) });
  response.flushHeaders();
  const step = Math.min(64 * 1024, Math.max(1, Math.floor(bytes_per_second / TICKS)));
  for (let begin = 0; begin < body.byteLength && !response.destroyed; begin += step) {
    const part = body.subarray(begin, begin + step);
    await new Promise<void>((resolve) => response.write(part, () => resolve()));
    request.sent_bytes += part.byteLength;
    if (bytes_per_second < Number.POSITIVE_INFINITY) await pause((1000 * part.byteLength) / bytes_per_second);
  }
  if (stop?.how === 'reset') response.socket?.resetAndDestroy();
  else if (stop?.how !== 'silence') await new Promise<void>((resolve) => response.end(resolve));
}

/** The part of a file that a Range header asks for; all of it when there is none. RFC 9110 §14. */
export function ranged(file: Uint8Array, range: string | undefined, headers: Readonly<Record<string, string>>): Answer {
  const [, first = '', last = ''] = /^bytes=(\d*)-(\d*)$/.exec(range ?? '') ?? [];
  const common = { ...headers, 'accept-ranges': 'bytes' };
  if (first === '' && last === '') return { status: 200, headers: { ...common, 'content-length': `${file.byteLength}` }, body: file, file };
  const begin = first === '' ? Math.max(0, file.byteLength - Number(last)) : Number(first);
  const end = first === '' || last === '' ? file.byteLength : Math.min(file.byteLength, Number(last) + 1);
  if (begin >= end)
    return { status: 416, headers: { ...common, 'content-range': `bytes */${file.byteLength}` }, body: new Uint8Array(), file };
  const content_range = `bytes ${begin}-${end - 1}/${file.byteLength}`;
  const body = file.subarray(begin, end);
  return { status: 206, headers: { ...common, 'content-range': content_range, 'content-length': `${body.byteLength}` }, body, file };
}

/** JSON, as the Hub sends it. */
export function json(value: unknown, headers: Readonly<Record<string, string>> = {}): Answer {
  const body = Buffer.from(JSON.stringify(value));
  return {
    status: 200,
    headers: { 'content-type': 'application/json; charset=utf-8', 'content-length': `${body.byteLength}`, ...headers },
    body,
  };
}

/** A refusal, as the Hub words it: a code for programs and a message for people. */
export function refusal(status: number, code: string | null, message: string): Answer {
  const headers = { ...(code === null ? {} : { 'x-error-code': code }), 'x-error-message': message };
  return { ...json({ error: message }, headers), status };
}
