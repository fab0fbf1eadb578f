import { AddressedBank, type BankBytes, type BankUse } from './addressed_bank.ts';
import type { Kernels } from './kernels.ts';

const NO_FLOATS = new Float32Array(0);
const NO_DOUBLES = new Float64Array(0);
const NO_INTS = new Int32Array(0);

/** A bank without memory: building a model on it counts the bytes that the real one will take, by the same code. */
export class PlanBank extends AddressedBank {
  readonly staging = new Uint8Array(0);

  constructor(use: BankUse) {
    super(use, 0);
  }

  get kernels(): Kernels {
    throw new Error('a planned bank computes nothing');
  }

  /** What has been asked for so far. */
  get bytes(): BankBytes {
    return {
      persistent: this.persistentArena.end - this.persistentArena.begin,
      scratch: Math.max(this.scratchArena.peak - this.scratchArena.begin, this.stagingBytes),
    };
  }

  storeRows(): number {
    throw new Error('a planned bank holds nothing');
  }

  protected floats(): Float32Array {
    return NO_FLOATS;
  }

  protected doubles(): Float64Array {
    return NO_DOUBLES;
  }

  protected ints(): Int32Array {
    return NO_INTS;
  }
}
