import type { Kernels } from '../runtime/kernels.ts';

/** Milliseconds in each kernel since the last `take`. */
export class Profile {
  private times = new Map<string, number>();

  /** The same kernels, watched. */
  watch = (kernels: Kernels): Kernels => {
    const watched: Record<string, unknown> = { ...kernels };
    for (const [name, kernel] of Object.entries(kernels)) {
      if (typeof kernel !== 'function') continue;
      watched[name] = (...args: unknown[]) => {
        const begin = performance.now();
        const result: unknown = (kernel as (...args: unknown[]) => unknown)(...args);
        this.times.set(name, (this.times.get(name) ?? 0) + performance.now() - begin);
        return result;
      };
    }
    return watched as unknown as Kernels;
  };

  /** Shares of `total_ms` by kernel, the largest first; `other` is what passed between kernels. */
  take(total_ms: number): Record<string, number> {
    const times = [...this.times].sort(([, a], [, b]) => b - a);
    this.times = new Map();
    const other = total_ms - times.reduce((sum, [, time]) => sum + time, 0);
    return Object.fromEntries([...times, ['other', other] as const].map(([name, time]) => [name, time / total_ms]));
  }
}
