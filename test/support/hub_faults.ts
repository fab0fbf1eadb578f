import type { Answer, HubRequest } from './hub_answer.ts';
import type { Fault, Script } from './scripted_hub.ts';

/** Which requests are meant, and what comes of them. */
export interface Rule {
  readonly kind?: HubRequest['kind'] | readonly HubRequest['kind'][];
  /** File of the repository. */
  readonly path?: string;
  readonly when?: (request: HubRequest) => boolean;
  /** How many of them, from the first. Default: all. */
  readonly times?: number;
  readonly fault: Fault;
}

/** The first rule that fits a request, and is not used up, decides. */
export function script(...rules: readonly Rule[]): Script {
  const used = rules.map(() => 0);
  return (request) => {
    const index = rules.findIndex(
      ({ kind = request.kind, path = request.path, when, times = Number.POSITIVE_INFINITY }, i) =>
        [kind].flat().includes(request.kind) && path === request.path && (when?.(request) ?? true) && used[i]! < times,
    );
    if (index < 0) return undefined;
    used[index]! += 1;
    return rules[index]!.fault;
  };
}

/** Another status, with the error page of a proxy. */
export function status(code: number, headers: Readonly<Record<string, string>> = {}): Fault {
  return () => page(code, `<html><body><h1>${code}</h1></body></html>`, headers);
}

/** The page of a network that wants a login first: all is well, and it is not the file. */
export function captivePortal(): Fault {
  return () => page(200, '<!doctype html><html><body>Welcome to the guest network</body></html>');
}

export function redirectTo(location: string, code = 302): Fault {
  return () => page(code, '', { location });
}

/** The body stops after so many bytes: by a reset, by an end like that of a whole file, by silence, or by a closed connection. */
export function cut(after_bytes: number, how: 'reset' | 'end' | 'silence' | 'close'): Fault {
  return (answer) => {
    if (how !== 'end') return { ...answer, stop: { after_bytes, how: how === 'close' ? 'end' : how } };
    // Without a length the body is chunked, and its end is an end.
    const { 'content-length': _, ...headers } = answer.headers;
    return { ...answer, headers, stop: { after_bytes, how } };
  };
}

/** No answer at all, not even a status: a reset, or silence. */
export function noAnswer(how: 'reset' | 'silence'): Fault {
  return (answer) => ({ ...answer, status: 0, stop: { after_bytes: 0, how } });
}

/** Content-Length says so many bytes more, or fewer, than there are. */
export function announced(difference: number): Fault {
  return (answer) => header('content-length', `${answer.body.byteLength + difference}`)(answer);
}

/** The server does not know ranges: 200 and the whole file. */
export function wholeFile(): Fault {
  return (answer) => {
    if (answer.status !== 206) return answer;
    const { 'content-range': _, 'accept-ranges': __, ...headers } = answer.headers;
    return { ...answer, status: 200, headers: { ...headers, 'content-length': `${answer.file!.byteLength}` }, body: answer.file! };
  };
}

export function header(name: string, value: string): Fault {
  return (answer) => ({ ...answer, headers: { ...answer.headers, [name]: value } });
}

/** One bit of the file is wrong, where the body has it. */
export function flippedBit(offset: number): Fault {
  return (answer) => {
    const begin = Number(/^bytes (\d+)-/.exec(answer.headers['content-range'] ?? '')?.[1] ?? 0);
    if (offset < begin || offset >= begin + answer.body.byteLength) return answer;
    const body = Uint8Array.from(answer.body);
    body[offset - begin]! ^= 1;
    return { ...answer, body };
  };
}

export function slow(bytes_per_second: number): Fault {
  return (answer) => ({ ...answer, bytes_per_second });
}

/** The JSON of an answer, changed. */
export function edited(change: (value: never) => unknown): Fault {
  return (answer) => {
    const body = Buffer.from(JSON.stringify(change(JSON.parse(Buffer.from(answer.body).toString()) as never)));
    return { ...answer, body, headers: { ...answer.headers, 'content-length': `${body.byteLength}` } };
  };
}

/** JSON that stops in the middle, under a length that fits. */
export function halfOfTheJson(): Fault {
  return (answer) => {
    const body = answer.body.subarray(0, answer.body.byteLength >> 1);
    return { ...answer, body, headers: { ...answer.headers, 'content-length': `${body.byteLength}` } };
  };
}

function page(code: number, text: string, headers: Readonly<Record<string, string>> = {}): Answer {
  const body = Buffer.from(text);
  return { status: code, headers: { 'content-type': 'text/html', 'content-length': `${body.byteLength}`, ...headers }, body };
}
