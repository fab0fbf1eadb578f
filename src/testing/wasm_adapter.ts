import { ArgumentError } from '../errors.ts';
import type { KernelAdapter, KernelRequest, KernelResults } from './adapter.ts';
import type { Params } from './tensors.ts';

const PAGE = 65536;
const GUARD = 0x5afe5afe;
const GUARD_BYTES = 64;

/** One call, as raw pointers: every array is f32, row-major, 16-byte aligned, and has guard words behind it. */
export interface WasmCall {
  /** Shape of an input or output. */
  shape(name: string): readonly number[];
  readonly params: Params;
  /** Address of an input, copied into the memory; 0 when the call has none of this name. It may not be written to. */
  input(name: string): number;
  /** Address of room for an output, full of NaN: what the kernel leaves out shows. */
  output(name: string): number;
  /** Address of an output that begins as a copy of an input: a kernel that works in place. */
  inPlace(output: string, input: string): number;
  /** Address of room for anything else, zeroed. */
  scratch(bytes: number): number;
  /** Address of other values than the inputs as they are, such as a packed weight. It may not be written to. */
  put(values: ArrayLike<number>): number;
  /** Elements of an input, for `put`. */
  values(name: string): ArrayLike<number>;
}

export interface WasmOptions {
  /** What messages call the kernel. Default `wasm`. */
  readonly name?: string | undefined;
  /** First byte that the adapter may use; what lies before belongs to the module. Default 1024. */
  readonly begin?: number | undefined;
}

/**
 * A kernel that is an export of a WebAssembly module.
 * @param memory the memory that the export works on; it grows when a case needs more
 * @param call calls the export with the addresses that it asks for
 */
export function wasmAdapter(memory: WebAssembly.Memory, call: (request: WasmCall) => void, options: WasmOptions = {}): KernelAdapter {
  return {
    name: options.name ?? 'wasm',
    run(request) {
      const frame = new Frame(memory, options.begin ?? 1024, request);
      call(frame);
      return frame.results();
    },
  };
}

/** The arrays of one call, one behind the other. */
class Frame implements WasmCall {
  readonly params: Params;
  private readonly memory: WebAssembly.Memory;
  private readonly request: KernelRequest;
  private readonly outputs = new Map<string, number>();
  /** Copies of what may not change: inputs and guards. */
  private readonly fixed: { what: string; ptr: number; words: Uint32Array }[] = [];
  private end: number;

  constructor(memory: WebAssembly.Memory, begin: number, request: KernelRequest) {
    this.memory = memory;
    this.request = request;
    this.params = request.params;
    this.end = begin;
  }

  shape(name: string): readonly number[] {
    const shape = this.request.inputs[name]?.shape ?? this.request.outputs[name];
    if (shape) return shape;
    throw this.unknown(name, [...Object.keys(this.request.inputs), ...Object.keys(this.request.outputs)]);
  }

  values(name: string): ArrayLike<number> {
    const input = this.request.inputs[name];
    if (input) return input.data;
    throw this.unknown(name, Object.keys(this.request.inputs));
  }

  input(name: string): number {
    return this.request.inputs[name] ? this.put(this.request.inputs[name].data, `input ${name}`) : 0;
  }

  put(values: ArrayLike<number>, what = 'a copied array'): number {
    const ptr = this.take(4 * values.length);
    new Float32Array(this.memory.buffer, ptr, values.length).set(values);
    this.fixed.push({ what, ptr, words: new Uint32Array(this.memory.buffer, ptr, values.length).slice() });
    return ptr;
  }

  output(name: string): number {
    return this.room(name, Number.NaN);
  }

  inPlace(output: string, input: string): number {
    const ptr = this.room(output, 0);
    new Float32Array(this.memory.buffer, ptr, this.lengthOf(output)).set(this.values(input));
    return ptr;
  }

  scratch(bytes: number): number {
    const ptr = this.take(bytes);
    new Uint8Array(this.memory.buffer, ptr, bytes).fill(0);
    return ptr;
  }

  /** The outputs, copied out. @throws {Error} when an input or the space between two arrays has been written to. */
  results(): KernelResults {
    for (const { what, ptr, words } of this.fixed) {
      const now = new Uint32Array(this.memory.buffer, ptr, words.length);
      const changed = words.findIndex((word, i) => word !== now[i]);
      if (changed >= 0) throw new Error(`word ${changed} of ${what} has been overwritten`);
    }
    return Object.fromEntries(
      [...this.outputs].map(([name, ptr]) => [name, new Float32Array(this.memory.buffer, ptr, this.lengthOf(name)).slice()]),
    );
  }

  private room(name: string, value: number): number {
    const ptr = this.take(4 * this.lengthOf(name));
    new Float32Array(this.memory.buffer, ptr, this.lengthOf(name)).fill(value);
    this.outputs.set(name, ptr);
    return ptr;
  }

  private lengthOf(name: string): number {
    const shape = this.request.outputs[name];
    if (shape) return shape.reduce((product, n) => product * n, 1);
    throw this.unknown(name, Object.keys(this.request.outputs));
  }

  private take(bytes: number): number {
    const ptr = Math.ceil(this.end / 16) * 16;
    const guard = Math.ceil((ptr + bytes) / 4) * 4;
    this.end = guard + GUARD_BYTES;
    const missing = Math.ceil((this.end - this.memory.buffer.byteLength) / PAGE);
    if (missing > 0) this.memory.grow(missing);
    const words = new Uint32Array(this.memory.buffer, guard, GUARD_BYTES / 4).fill(GUARD);
    this.fixed.push({ what: `the space behind address ${ptr} and its ${bytes} bytes`, ptr: guard, words: words.slice() });
    return ptr;
  }

  private unknown(name: string, known: readonly string[]): ArgumentError {
    const fix = 'golden/README.md has the table of kernels, inputs and outputs.';
    return new ArgumentError({ where: `call of ${this.request.kernel}`, expected: `one of ${known.join(', ')}`, found: `"${name}"`, fix });
  }
}
