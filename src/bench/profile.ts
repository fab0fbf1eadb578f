import type { Kernels } from '../runtime/kernels.ts';

/** Time in each kernel, while it runs. A clock around every kernel slows decoding by a tenth: elsewhere the kernels run unwatched. */
export class Profile {
  private times = new Map<string, number>();
  private readonly banks: { kernels: Record<string, unknown>; plain: Kernels }[] = [];

  /** The same kernels, to be watched later. */
  add = (plain: Kernels): Kernels => {
    const kernels = { ...plain };
    this.banks.push({ kernels: kernels as unknown as Record<string, unknown>, plain });
    return kernels;
  };

  /** Runs something under the clock. Returns shares of its time by kernel, the largest first; `other` is what passed between kernels. */
  of(run: () => void): Record<string, number> {
    this.times = new Map();
    for (const { kernels, plain } of this.banks) {
      for (const [name, kernel] of Object.entries(plain)) if (typeof kernel === 'function') kernels[name] = this.timed(name, kernel);
    }
    const begin = performance.now();
    run();
    const total_ms = performance.now() - begin;
    for (const { kernels, plain } of this.banks) Object.assign(kernels, plain);
    const times = [...this.times].sort(([, a], [, b]) => b - a);
    const other = total_ms - times.reduce((sum, [, time]) => sum + time, 0);
    return Object.fromEntries([...times, ['other', other] as const].map(([name, time]) => [name, time / total_ms]));
  }

  private timed(name: string, kernel: (...args: never[]) => unknown): (...args: never[]) => unknown {
    return (...args) => {
      const begin = performance.now();
      const result = kernel(...args);
      this.times.set(name, (this.times.get(name) ?? 0) + performance.now() - begin);
      return result;
    };
  }
}
