import { type Problem, RuntimeLimitError } from './errors.ts';
import type { Placement } from './model/placement.ts';
import { gigabytes } from './words.ts';

/** Formats that may be smaller than the weights as stored, the most exact first. */
const SMALLER = ['q8', 'q4'] as const;
/** Below this a shorter context helps nobody. */
const SHORTEST_CONTEXT = 256;

/** What a plan was made of. */
interface PlanRequest {
  readonly weights: 'f32' | 'bf16' | 'q8' | 'q4' | undefined;
  readonly context: number;
  /** Whether the weights may be quantised. */
  readonly quantisable: boolean;
}

/** Bytes of memory in this machine. A page cannot ask for them: there the allocation itself is the check. */
export async function machineBytes(): Promise<number> {
  if (typeof process === 'undefined') return Infinity;
  return (await import('node:os')).totalmem();
}

/**
 * Holds a plan against a limit, and where it exceeds it looks for what does not, by planning that.
 * @param planFor plans the same model in other formats or for another context
 * @returns null if the plan keeps within the limit
 */
export function tooLarge(
  limit_bytes: number,
  { total_bytes }: Placement,
  { weights, context, quantisable }: PlanRequest,
  planFor: (weights: PlanRequest['weights'], context: number) => Placement,
): Problem | null {
  if (total_bytes <= limit_bytes) return null;

  const fitting: string[] = [];
  const consider = (what: string, weights: PlanRequest['weights'], context: number) => {
    const bytes = planned(() => planFor(weights, context).total_bytes);
    if (bytes > limit_bytes || bytes >= total_bytes) return false;
    fitting.push(`${what} (${gigabytes(bytes)})`);
    return true;
  };
  const smaller = quantisable ? SMALLER.slice(SMALLER.indexOf(weights as 'q8') + 1) : [];
  smaller.find((format) => consider(`weights ${format}`, format, context));
  const shorter = halves(context);
  shorter.find((fewer) => consider(`a context of ${fewer}`, weights, fewer));
  // Both at once only if neither is enough.
  if (fitting.length === 0)
    shorter.find((fewer) => smaller.some((format) => consider(`weights ${format} and a context of ${fewer}`, format, fewer)));
  return {
    where: 'memory',
    expected: `${gigabytes(total_bytes)} for weights, caches and scratch`,
    found: gigabytes(limit_bytes),
    fix:
      fitting.length > 0 ? `This would fit: ${fitting.join(', or ')}.` : 'No weights and no context fit: use a machine with more memory.',
  };
}

/** The bytes of a plan, too many where a layer exceeds a bank. */
function planned(bytes: () => number): number {
  try {
    return bytes();
  } catch (error) {
    if (error instanceof RuntimeLimitError) return Infinity;
    throw error;
  }
}

function halves(context: number): number[] {
  const shorter: number[] = [];
  for (let fewer = Math.floor(context / 2); fewer >= SHORTEST_CONTEXT; fewer = Math.floor(fewer / 2)) shorter.push(fewer);
  return shorter;
}
