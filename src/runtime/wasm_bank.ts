import { RuntimeLimitError } from '../errors.ts';
import { AddressedBank, type BankBytes } from './addressed_bank.ts';
import type { Kernels } from './kernels.ts';
import type { Matrix, WeightDtype } from './tensor.ts';
import { wasmKernels } from './wasm_kernels.ts';
import type { KernelExports } from './wasm_module.ts';

const PAGE = 65536;
/** A wasm32 memory ends here. */
export const BANK_LIMIT_BYTES = 65536 * PAGE;

/** One wasm memory and an instance of the kernels over it. Its size is fixed when it is made: views stay valid for life. */
export class WasmBank extends AddressedBank {
  readonly kernels: Kernels;
  readonly staging: Uint8Array;
  private readonly memory: WebAssembly.Memory;
  private readonly core: KernelExports;

  /**
   * @param bytes From the plan that the same constructors made on a PlanBank.
   * @throws {RuntimeLimitError} when the engine cannot give that much memory.
   */
  constructor(module: WebAssembly.Module, rows: number, bytes: BankBytes) {
    super(rows, bytes.persistent);
    const pages = Math.ceil((this.scratchArena.begin + bytes.scratch) / PAGE);
    this.memory = allocate(pages);
    this.core = new WebAssembly.Instance(module, { env: { memory: this.memory } }).exports as KernelExports;
    this.kernels = wasmKernels(this.core);
    this.staging = new Uint8Array(this.memory.buffer, this.scratchArena.begin, bytes.scratch);
  }

  storeRows(weight: Matrix, dtype: WeightDtype, begin: number, end: number): number {
    const from = this.scratchArena.begin;
    const { N, K, ptr } = weight;
    if (weight.layout === 'panels') {
      const pack = { F32: this.core.pack_f32, F16: this.core.pack_f16, BF16: this.core.pack_bf16 }[dtype];
      return pack(ptr, from, K, N, begin, end);
    }
    const copy = { F32: this.core.copy_f32, F16: this.core.copy_f16, BF16: this.core.copy_bf16 }[dtype];
    return copy(ptr, from, K, begin, end);
  }

  protected floats(ptr: number, length: number): Float32Array {
    return new Float32Array(this.memory.buffer, ptr, length);
  }

  protected doubles(ptr: number, length: number): Float64Array {
    return new Float64Array(this.memory.buffer, ptr, length);
  }

  protected ints(ptr: number, length: number): Int32Array {
    return new Int32Array(this.memory.buffer, ptr, length);
  }
}

function allocate(pages: number): WebAssembly.Memory {
  try {
    return new WebAssembly.Memory({ initial: pages, maximum: pages });
  } catch (cause) {
    throw new RuntimeLimitError(
      {
        where: 'memory of a bank',
        expected: `${((pages * PAGE) / 2 ** 20).toFixed(0)} MiB`,
        found: cause instanceof Error ? cause.message : String(cause),
        fix: 'Ask for a shorter context, or close what else uses memory.',
      },
      { cause },
    );
  }
}
