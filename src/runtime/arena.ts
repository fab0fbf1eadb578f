const ALIGNMENT = 64;

/** Hands out addresses one after the other, each on a cache line of its own. Knows nothing of memory: plans and banks use it alike. */
export class Arena {
  readonly begin: number;
  /** First free byte. */
  end: number;
  /** The largest `end` so far. */
  peak: number;

  constructor(begin: number) {
    this.begin = begin;
    this.end = begin;
    this.peak = begin;
  }

  /** Address of `bytes` fresh bytes. */
  take(bytes: number): number {
    const ptr = this.end;
    this.end = ptr + Math.ceil(bytes / ALIGNMENT) * ALIGNMENT;
    this.peak = Math.max(this.peak, this.end);
    return ptr;
  }

  rewind(): void {
    this.end = this.begin;
  }
}
