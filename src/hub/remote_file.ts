import type { ByteSource } from '../checkpoint/byte_source.ts';
import { HubError } from '../errors.ts';
import type { HubClient, Opened } from './client.ts';
import type { HubFile } from './repository.ts';
import { pause, retrying, Transient } from './retries.ts';

/** Bytes of one request; a multiple of all that is read from a checkpoint at once would only cost memory. */
const RANGE_BYTES = 1 << 24;
/** Requests of one file at a time. */
const RANGES_IN_FLIGHT = 4;
/** Responses in a row that do not get further, where each begins at byte 0. */
const MOST_FRUITLESS = 3;

/** A server that sends the whole file whatever range it was asked for. */
class RangesIgnored extends Error {}

/** A range on its way, of which the beginning can be taken before the rest has come. */
class Arrival {
  readonly end: Promise<void>;
  readonly #out: Uint8Array;
  #filled = 0;
  #wake = () => {};

  /** @param read fills `out`, and tells how much of it is filled */
  constructor(out: Uint8Array, read: (onBytes: (filled: number) => void) => Promise<void>) {
    this.#out = out;
    this.end = read((filled) => {
      this.#filled = filled;
      this.#wake();
    });
    this.end.catch(() => {}); // it is looked at in its turn
  }

  /** All of it, in parts as large as have come meanwhile. @throws what `read` does, when all that had come is taken */
  async *pieces(): AsyncGenerator<Uint8Array> {
    for (let taken = 0; taken < this.#out.length; ) {
      const more = new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
      if (taken === this.#filled) await Promise.race([this.end, more]);
      const piece = this.#out.subarray(taken, this.#filled);
      taken = this.#filled;
      yield piece;
    }
  }
}

/** A file on the Hub, read by ranges. */
export class RemoteFile {
  readonly file: HubFile;
  readonly #client: HubClient;
  readonly #url: string;
  /** Where the Hub has sent us for this file: large files lie on another host, behind URLs that expire. */
  #location: string | null = null;

  constructor(client: HubClient, commit: string, file: HubFile) {
    this.file = file;
    this.#client = client;
    const path = file.name.split('/').map(encodeURIComponent).join('/');
    this.#url = `${client.environment.endpoint}/${client.id.repository}/resolve/${commit}/${path}`;
  }

  /** What messages call it. */
  get where(): string {
    return this.#client.where(this.file.name);
  }

  /**
   * Reads from `begin` to the end, several ranges at a time but in their order. A server without ranges is read in one request.
   * @returns pieces that are the caller's until the next one is taken
   * @throws {HubError} when it cannot be had, and when it is not the file that the repository lists
   */
  async *pieces(begin: number): AsyncGenerator<Uint8Array> {
    const buffers = Array.from({ length: RANGES_IN_FLIGHT }, () => new Uint8Array(Math.min(RANGE_BYTES, this.file.bytes - begin)));
    const { signal } = this.#client.patience;
    const stop = new AbortController();
    const signals = signal ? AbortSignal.any([signal, stop.signal]) : stop.signal;
    const arriving: Arrival[] = [];
    let asked = begin;
    let at = begin;
    let count = 0;
    try {
      while (at < this.file.bytes) {
        for (; arriving.length < RANGES_IN_FLIGHT && asked < this.file.bytes; asked += RANGE_BYTES) {
          const from = asked;
          const out = buffers[count++ % RANGES_IN_FLIGHT]!.subarray(0, Math.min(RANGE_BYTES, this.file.bytes - from));
          arriving.push(new Arrival(out, (onBytes) => this.#read(from, out, onBytes, signals)));
        }
        for await (const piece of arriving[0]!.pieces()) {
          at += piece.length;
          yield piece;
        }
        // Only now may its buffer be filled again.
        arriving.shift();
      }
    } catch (error) {
      if (!(error instanceof RangesIgnored)) throw error;
      yield* this.#whole(at);
    } finally {
      // Whoever leaves behind the last byte lets the last request end by itself.
      if (at < this.file.bytes) stop.abort();
      await Promise.allSettled(arriving.map(({ end }) => end));
    }
  }

  /** The file as a source of bytes, for its header. */
  source(): ByteSource {
    return {
      name: this.where,
      byteLength: this.file.bytes,
      read: async (offset, out) => {
        await this.#read(offset, out).catch((error: unknown) => {
          if (!(error instanceof RangesIgnored)) throw error;
          const fix = 'Download the model instead, by olmo-hybrid pull.';
          throw new HubError({ where: this.where, expected: 'a server that gives parts of files', found: 'the whole file', fix });
        });
      },
      close: async () => {},
    };
  }

  /** Fills `out` with the bytes from `begin` on; after a failure it goes on where it was. */
  async #read(begin: number, out: Uint8Array, onBytes = (_: number) => {}, signal = this.#client.patience.signal): Promise<void> {
    let done = 0;
    await retrying({ ...this.#client.patience, signal }, async (progress) => {
      if (done === out.length) return;
      const opened = await this.#open({ range: `bytes=${begin + done}-${begin + out.length - 1}` }, signal);
      try {
        this.#checkRange(opened.response, begin + done, begin + out.length);
        for await (const bytes of opened.bytes()) {
          const wanted = bytes.subarray(0, out.length - done);
          out.set(wanted, done);
          done += wanted.length;
          onBytes(done);
          progress();
          if (wanted.length < bytes.length) break;
        }
      } finally {
        await opened.close();
      }
      if (done < out.length) throw this.#cut(begin + done);
    });
  }

  /** The file from `begin` on, out of responses that all begin at byte 0. */
  async *#whole(begin: number): AsyncGenerator<Uint8Array> {
    let at = begin;
    for (let fruitless = 0; at < this.file.bytes; ) {
      const opened = await retrying(this.#client.patience, () => this.#open({}));
      const before = at;
      let failure = this.#cut(at);
      let position = 0;
      try {
        for await (const bytes of opened.bytes()) {
          const fresh = bytes.subarray(Math.max(0, at - position), this.file.bytes - position);
          position += bytes.length;
          at += fresh.length;
          if (fresh.length > 0) yield fresh;
        }
      } catch (error) {
        if (!(error instanceof Transient)) throw error;
        failure = error;
      } finally {
        await opened.close();
      }
      fruitless = at > before ? 0 : fruitless + 1;
      if (fruitless === MOST_FRUITLESS) throw new HubError(failure.problem);
      if (fruitless > 0) await pause(this.#client.patience.retry_delay_ms, this.#client.patience.signal);
    }
  }

  async #open(headers: Record<string, string>, signal = this.#client.patience.signal): Promise<Opened> {
    const opened = await this.#client.open(this.#location ?? this.#url, { headers, signal: signal ?? null }, this.file.name);
    const { response, url } = opened;
    if (response.ok) {
      this.#location = url;
      return opened;
    }
    if (this.#location !== null && this.#location !== this.#url && response.status < 500) {
      // The URL on the other host has expired, or is of a piece that was moved.
      this.#location = null;
      await opened.close();
      const found = `status ${response.status} from ${new URL(url).host}`;
      throw new Transient({ where: this.where, expected: 'its bytes', found, fix: 'Try again later.' });
    }
    throw await this.#client.failure(opened, this.file.name);
  }

  #checkRange({ status, headers }: Response, begin: number, end: number): void {
    const { bytes } = this.file;
    if (status === 206) {
      const [, first, total] = /^bytes (\d+)-\d+\/(\d+)$/.exec(headers.get('content-range') ?? '') ?? [];
      if (Number(first) === begin && Number(total) === bytes) return;
      const found = `the range ${headers.get('content-range')}`;
      const fix = 'Try again later; if it stays so, the server is at fault.';
      throw new Transient({ where: this.where, expected: `bytes ${begin}-${end - 1}/${bytes}`, found, fix });
    }
    const length = headers.get('content-length');
    if (length === null || Number(length) === bytes) {
      if (begin === 0 && end === bytes) return;
      throw new RangesIgnored();
    }
    const found = `${length} bytes of ${headers.get('content-type') ?? 'something else'}`;
    const fix = 'Check HF_ENDPOINT, and that no login page of the network answers in its place.';
    throw new HubError({ where: this.where, expected: `a file of ${bytes} bytes`, found, fix });
  }

  #cut(at: number): Transient {
    return new Transient({
      where: this.where,
      expected: `${this.file.bytes} bytes`,
      found: `the end at byte ${at}`,
      fix: 'Try again later.',
    });
  }
}
