import { HubError, type Problem } from '../errors.ts';
import type { HubEnvironment } from './environment.ts';
import { formatModelId, type ModelId } from './model_id.ts';
import { type Patience, retryAfter, retrying, Transient } from './retries.ts';

export interface HubOptions {
  readonly environment: HubEnvironment;
  /** Ends what is going on, with its reason as the error. */
  readonly signal?: AbortSignal | undefined;
  /** Tells why a request is repeated, and after which pause. */
  readonly onRetry?: ((problem: Problem, pause_ms: number) => void) | undefined;
}

/** A response whose body has not been read. */
export interface Opened {
  readonly response: Response;
  /** Where redirects have led. */
  readonly url: string;
  /** The body; a pause without a byte longer than the idle timeout ends it with a Transient. */
  bytes(): AsyncGenerator<Uint8Array>;
  /** Ends the connection where the body is not wanted to its end. */
  close(): Promise<void>;
}

const MOST_REDIRECTS = 5;
const REDIRECTS = [301, 302, 303, 307, 308];
/** Answers of the API are lists of names. */
const LONGEST_ANSWER = 1 << 26;
/** What may be otherwise in a moment. */
const PASSING = [408, 425, 429, 500, 502, 503, 504];

/** HTTP to the Hub for one model. The token goes to the Hub's own origin only, whatever redirects say. */
export class HubClient {
  readonly environment: HubEnvironment;
  readonly id: ModelId;
  readonly patience: Patience;
  readonly #origin: string;

  /** @throws {HubError} when requests are forbidden by HF_HUB_OFFLINE */
  constructor(id: ModelId, { environment, signal, onRetry }: HubOptions) {
    if (environment.offline) {
      const fix = 'Unset HF_HUB_OFFLINE to download it.';
      throw new HubError({ where: formatModelId(id), expected: `it in the cache, ${environment.cache}`, found: 'it not there', fix });
    }
    this.id = id;
    this.environment = environment;
    this.patience = { retry_delay_ms: environment.retry_delay_ms, signal, onRetry };
    this.#origin = new URL(environment.endpoint).origin;
  }

  /** What messages call the model, or a file of it. */
  where(file?: string): string {
    return file === undefined ? formatModelId(this.id) : `${formatModelId(this.id)}: ${file}`;
  }

  /** `fetch` for @huggingface/hub, which asks for JSON only: repeats what may pass, and gives answers that are whole. */
  readonly fetch = async (input: string | URL | Request, init: RequestInit = {}): Promise<Response> => {
    const url = String(input instanceof Request ? input.url : input);
    if (new URL(url).origin !== this.#origin) {
      const fix = 'Check HF_ENDPOINT, and who answers there.';
      throw new HubError({ where: this.where(), expected: `answers that lead to ${this.#origin}`, found: new URL(url).origin, fix });
    }
    return await retrying(this.patience, async () => {
      const opened = await this.open(url, init);
      if (!opened.response.ok) throw await this.failure(opened);
      const { status, headers } = opened.response;
      const text = await this.#text(opened);
      try {
        JSON.parse(text);
      } catch (cause) {
        const found = `${headers.get('content-type') ?? 'an answer'} that is not JSON`;
        throw new Transient({ where: this.where(), expected: 'JSON from the Hub', found, fix: 'Check HF_ENDPOINT.' }, null, { cause });
      }
      const link = headers.get('link');
      return new Response(text, { status, headers: link === null ? {} : { link } });
    });
  };

  /**
   * Sends one request and follows redirects.
   * @throws {Transient} when there is no connection or no answer in time; {HubError} for redirects that lead nowhere
   */
  async open(url: string, init: RequestInit = {}, file?: string): Promise<Opened> {
    const idle = new IdleTimer(this.environment.idle_timeout_ms, this.where(file), init.signal ?? this.patience.signal);
    try {
      for (let at = url, hops = 0; hops <= MOST_REDIRECTS; hops++) {
        const response = await fetch(at, { ...init, headers: this.#headers(at, init.headers), redirect: 'manual', signal: idle.signal });
        const location = response.headers.get('location');
        if (!REDIRECTS.includes(response.status) || location === null)
          return opened(response, at, idle, (error) => this.#lost(error, file));
        await response.body?.cancel();
        at = this.#redirected(at, location, file);
      }
    } catch (error) {
      idle.end();
      throw this.#lost(error, file);
    }
    idle.end();
    const fix = 'Check HF_ENDPOINT, and who answers there.';
    throw new HubError({ where: this.where(file), expected: `at most ${MOST_REDIRECTS} redirects`, found: 'more', fix });
  }

  /** What a status means that is no success. */
  async failure({ response, url, close }: Opened, file?: string): Promise<Error> {
    await close();
    const { status, headers } = response;
    const where = this.where(file);
    const found = `status ${status} from ${new URL(url).host}`;
    if (PASSING.includes(status)) {
      return new Transient({ where, expected: 'an answer of the Hub', found, fix: 'Try again later.' }, retryAfter(headers));
    }
    const page = `${this.environment.endpoint}/${this.id.repository}`;
    const code = headers.get('x-error-code');
    if ((status === 401 || status === 403) && code !== 'GatedRepo') {
      const expected = this.environment.token === null ? 'a public model' : 'a model that the token of HF_TOKEN may read';
      return new HubError({
        where,
        expected,
        found: `${found}: none, or a private one`,
        fix: 'Check its name, and HF_TOKEN; no folder here has this name either.',
      });
    }
    if (code === 'GatedRepo') {
      return new HubError({ where, expected: 'access to it', found, fix: `Ask for access on ${page} and set HF_TOKEN.` });
    }
    if (code === 'RevisionNotFound') {
      return new HubError({
        where,
        expected: 'a branch, tag or commit of it',
        found: `no ${this.id.revision}`,
        fix: `Look on ${page}/tree/main.`,
      });
    }
    if (status === 404)
      return new HubError({
        where,
        expected: 'it on the Hub',
        found: `nothing at ${page}`,
        fix: 'Check its name; no folder here has it either.',
      });
    return new HubError({ where, expected: 'an answer of the Hub', found, fix: 'Check HF_ENDPOINT, and who answers there.' });
  }

  #headers(url: string, given: RequestInit['headers']): Headers {
    const headers = new Headers(given);
    headers.set('user-agent', 'olmo-hybrid');
    // Compressed answers have no ranges, and no length to check.
    headers.set('accept-encoding', 'identity');
    const { token } = this.environment;
    if (token !== null && new URL(url).origin === this.#origin) headers.set('authorization', `Bearer ${token}`);
    return headers;
  }

  #redirected(from: string, location: string, file: string | undefined): string {
    const to = URL.canParse(location, from) ? new URL(location, from) : null;
    const safe = to?.protocol === 'https:' || (to?.protocol === 'http:' && new URL(from).protocol === 'http:');
    if (to && safe) return to.href;
    const fix = 'Check HF_ENDPOINT, and who answers there.';
    throw new HubError({ where: this.where(file), expected: 'a redirect to https', found: to?.protocol ?? 'no URL', fix });
  }

  async #text(opened: Opened): Promise<string> {
    const pieces: Uint8Array[] = [];
    let length = 0;
    for await (const piece of opened.bytes()) {
      pieces.push(piece);
      length += piece.length;
      if (length <= LONGEST_ANSWER) continue;
      const problem = {
        where: this.where(),
        expected: `an answer of at most ${LONGEST_ANSWER} bytes`,
        found: 'more',
        fix: 'Check HF_ENDPOINT.',
      };
      throw new HubError(problem);
    }
    const announced = Number(opened.response.headers.get('content-length') ?? length);
    if (length === announced) return Buffer.concat(pieces).toString('utf8');
    const found = `${length} bytes of ${announced}`;
    throw new Transient({ where: this.where(), expected: 'an answer of the Hub in full', found, fix: 'Try again later.' });
  }

  /** A broken connection as a Transient; any other error as it is. */
  #lost(error: unknown, file: string | undefined): unknown {
    if (!(error instanceof TypeError)) return error; // what fetch throws for the network
    const { code, message } = (error.cause ?? error) as NodeJS.ErrnoException;
    const found = code === undefined ? `none: ${message}` : `none (${code})`;
    const fix = 'Check the network; what has been fetched is kept.';
    return new Transient({ where: this.where(file), expected: `a connection to ${this.environment.endpoint}`, found, fix }, null, {
      cause: error,
    });
  }
}

/** Ends a request when nothing has come for a while, or when the caller's signal does. */
class IdleTimer {
  readonly signal: AbortSignal;
  readonly #controller = new AbortController();
  readonly #timer: NodeJS.Timeout;

  constructor(timeout_ms: number, where: string, signal: AbortSignal | undefined) {
    this.signal = signal ? AbortSignal.any([signal, this.#controller.signal]) : this.#controller.signal;
    const found = `none for ${timeout_ms / 1000} s`;
    const problem = { where, expected: 'bytes', found, fix: 'Try again later; HF_HUB_DOWNLOAD_TIMEOUT says how many seconds to wait.' };
    this.#timer = setTimeout(() => this.#controller.abort(new Transient(problem)), timeout_ms);
  }

  touch(): void {
    this.#timer.refresh();
  }

  end(): void {
    clearTimeout(this.#timer);
  }
}

function opened(response: Response, url: string, idle: IdleTimer, lost: (error: unknown) => unknown): Opened {
  idle.touch();
  const close = async () => {
    idle.end();
    await response.body?.cancel().catch(() => {});
  };
  async function* bytes(): AsyncGenerator<Uint8Array> {
    try {
      if (response.body === null) return;
      for await (const piece of response.body as unknown as AsyncIterable<Uint8Array>) {
        idle.touch();
        yield piece;
      }
    } catch (error) {
      throw lost(error);
    } finally {
      idle.end();
    }
  }
  return { response, url, bytes, close };
}
