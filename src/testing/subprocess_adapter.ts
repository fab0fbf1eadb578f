import { bytesSource } from '../checkpoint/byte_source.ts';
import { readSafetensors, readTensor } from '../checkpoint/safetensors.ts';
import { writeSafetensors } from '../checkpoint/safetensors_writer.ts';
import { ArgumentError } from '../errors.ts';
import { type Child, endGroup, endGroupAtExit, ownGroup } from '../process_group.ts';
import { type KernelAdapter, type KernelRequest, type KernelResults, NoAnswer } from './adapter.ts';

/** Of `protocol` in a request's metadata; docs/property_kit.md describes it. */
const PROTOCOL = '1';
const LENGTH_BYTES = 8;
/** No answer is longer: a length beyond it is text that was printed by mistake. */
const MOST_BYTES = 2 ** 31;
/** Of what the process has written to stderr, the end is quoted. */
const QUOTED = 2000;
/** Of bytes on stdout that are no answer, the beginning. */
const BYTES_QUOTED = 60;

export interface SubprocessOptions {
  /** What messages call the kernel. Default: the command. */
  readonly name?: string | undefined;
  readonly cwd?: string | undefined;
  readonly env?: Readonly<Record<string, string | undefined>> | undefined;
  /** Longest wait for one answer, the start of the process included. Default 120,000. */
  readonly timeout_ms?: number | undefined;
}

/** A kernel in another process. Call `close` when done. */
export interface SubprocessAdapter extends KernelAdapter {
  close(): Promise<void>;
}

/**
 * A kernel in another process (Node only), in any language: each call is a safetensors file on its stdin, each answer one on its stdout, both
 * behind their length. docs/property_kit.md has the protocol. The process starts with the first call, and anew when it has died in one.
 * @param command program, not a line for a shell
 */
export function subprocessAdapter(command: string, args: readonly string[] = [], options: SubprocessOptions = {}): SubprocessAdapter {
  let running: Connection | null = null;
  return {
    name: options.name ?? [command, ...args].join(' '),
    async run(request) {
      running ??= await Connection.open(command, args, options);
      try {
        return await running.ask(request);
      } catch (error) {
        if (running.ended) running = null;
        throw error;
      }
    },
    async close() {
      await running?.close();
      running = null;
    },
  };
}

/** One process and the bytes that it has sent. */
class Connection {
  ended = false;
  private readonly child: Child;
  private readonly timeout_ms: number;
  private readonly stdout: AsyncIterator<Uint8Array>;
  private readonly exited: Promise<string>;
  private received: Uint8Array = new Uint8Array(0);
  private stderr = '';

  private constructor(child: Child, timeout_ms: number) {
    this.child = child;
    this.timeout_ms = timeout_ms;
    this.stdout = child.stdout[Symbol.asyncIterator]() as AsyncIterator<Uint8Array>;
    this.exited = new Promise((resolve) => {
      child.on('close', (code, signal) => resolve(signal ?? `status ${code}`));
    });
    child.stderr.setEncoding('utf8').on('data', (text: string) => {
      this.stderr = (this.stderr + text).slice(-QUOTED);
    });
    child.stdin.on('error', () => {}); // a process that died shows as the end of its stdout
  }

  static async open(command: string, args: readonly string[], { cwd, env, timeout_ms = 120_000 }: SubprocessOptions): Promise<Connection> {
    const { spawn } = await import('node:child_process');
    const child = spawn(command, args, { cwd, env, stdio: ['pipe', 'pipe', 'pipe'], ...ownGroup() });
    await new Promise<void>((resolve, reject) => {
      child.once('spawn', resolve);
      child.once('error', ({ message }) => {
        const fix = 'Check the command and its path.';
        reject(new ArgumentError({ where: command, expected: 'a program that starts', found: message, fix }));
      });
    });
    endGroupAtExit(child);
    return new Connection(child, timeout_ms);
  }

  async ask(request: KernelRequest): Promise<KernelResults> {
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<never>((_, reject) => {
      timer = setTimeout(() => {
        this.kill();
        reject(new NoAnswer(`no answer within ${this.timeout_ms} ms${this.unread()}${this.quoted()}`));
      }, this.timeout_ms);
    });
    try {
      for (const piece of framed(request)) this.child.stdin.write(piece);
      return await Promise.race([this.answer(request), late]);
    } finally {
      clearTimeout(timer);
    }
  }

  async close(): Promise<void> {
    this.ended = true;
    this.child.stdin.end();
    await this.stdout.return?.(); // what nobody reads would keep the process open
    const timer = setTimeout(() => this.kill(), 2000);
    await this.exited;
    clearTimeout(timer);
  }

  private kill(): void {
    this.ended = true;
    endGroup(this.child);
  }

  private async answer({ kernel, outputs }: KernelRequest): Promise<KernelResults> {
    const prefix = await this.read(LENGTH_BYTES);
    const length = new DataView(prefix.buffer, prefix.byteOffset).getBigUint64(0, true);
    if (length > MOST_BYTES) {
      this.kill();
      throw new Error(
        `the answer begins with ${JSON.stringify(new TextDecoder().decode(prefix))}, not with its length: keep stdout free${this.quoted()}`,
      );
    }
    const bytes = await this.read(Number(length));
    const { metadata, tensors } = await readSafetensors(bytesSource(`answer to ${kernel}`, bytes));
    const error = metadata.get('error');
    if (error !== undefined) throw new Error(error);
    const results: Record<string, Float32Array | Float64Array> = {};
    for (const name of Object.keys(outputs)) {
      const entry = tensors.get(name);
      if (!entry) continue; // checkKernel says what is missing
      if (entry.shape.join() !== outputs[name]!.join())
        throw new Error(`${name} should be [${outputs[name]!.join(', ')}], found [${entry.shape.join(', ')}]`);
      const data = await readTensor(entry);
      if (!(data instanceof Float32Array || data instanceof Float64Array))
        throw new Error(`${name} is ${entry.dtype}: answer in F32, F64, F16 or BF16`);
      results[name] = data;
    }
    return results;
  }

  /** The next bytes of stdout. */
  private async read(count: number): Promise<Uint8Array> {
    while (this.received.length < count) {
      const { value, done } = await this.stdout.next();
      if (done) {
        this.ended = true;
        throw new Error(`the process ended (${await this.exited}) before it answered${this.quoted()}`);
      }
      const both = new Uint8Array(this.received.length + value.length);
      both.set(this.received);
      both.set(value, this.received.length);
      this.received = both;
    }
    const bytes = this.received.slice(0, count);
    this.received = this.received.subarray(count);
    return bytes;
  }

  /** What came instead of an answer, or is the beginning of one. */
  private unread(): string {
    const { length } = this.received;
    if (length === 0) return '';
    const begin = JSON.stringify(new TextDecoder().decode(this.received.subarray(0, BYTES_QUOTED)));
    return `, but ${length} bytes on stdout that are none as a whole: ${begin}${length > BYTES_QUOTED ? '…' : ''}`;
  }

  private quoted(): string {
    return this.stderr === '' ? '' : `; it says: ${this.stderr.trim()}`;
  }
}

/** The length of the request as u64, little-endian, then the request. */
function framed({ kernel, inputs, params, outputs }: KernelRequest): Uint8Array[] {
  const tensors = Object.entries(inputs).map(([name, { shape, data }]) => {
    return { name, dtype: data instanceof Float64Array ? ('F64' as const) : ('F32' as const), shape, data };
  });
  const metadata = { protocol: PROTOCOL, kernel, params: JSON.stringify(params), outputs: JSON.stringify(outputs) };
  const pieces = writeSafetensors(tensors, new Map(Object.entries(metadata)));
  const prefix = new Uint8Array(LENGTH_BYTES);
  new DataView(prefix.buffer).setBigUint64(0, BigInt(pieces.reduce((sum, piece) => sum + piece.length, 0)), true);
  return [prefix, ...pieces];
}
