import type { OlmoHybridConfig } from '../../src/config.ts';
import type { KernelName } from '../../src/kernel_calls.ts';
import type { OlmoHybridForCausalLM } from '../../src/model/olmo_hybrid.ts';
import type { Kernels } from '../../src/runtime/kernels.ts';
import type { Tensor } from '../../src/runtime/tensor.ts';

/** Where the mistakes that only a second call shows cut the prompt, as golden/mistakes.py does. */
export const CUT = 37;

/** A pass over a prompt: what `see` runs is recorded. */
export interface Session {
  readonly model: OlmoHybridForCausalLM;
  readonly config: OlmoHybridConfig;
  readonly ids: readonly number[];
  see(tokens: readonly number[]): void;
}

/** A mistake that a runtime makes, made by itself in what is otherwise the reference. */
export interface Mutant {
  readonly name: string;
  /** What is wrong, as a sentence. */
  readonly bug: string;
  /** What that does to the output. */
  readonly effect: string;
  /** Public places where it was seen, in Markdown; null where none is known to us. */
  readonly seen: string | null;
  /** The golden model that shows it. */
  readonly model: string;
  /** The op that the trace should be seen to part at. */
  readonly op: string;
  /** What `diff` may take for the cause. */
  readonly causes: readonly string[];
  /** Its name in golden/mistakes.json, where the truth in Python makes the same mistake. */
  readonly in_python?: string;
  /** The kernel that is wrong; null when the kernels are right and the model puts them together wrongly. */
  readonly kernel: KernelName | null;
  /** The kernels with the mistake; `nameOf` gives the parameter that a tensor holds. */
  readonly kernels?: (right: Kernels, nameOf: (tensor: Tensor) => string | undefined, config: OlmoHybridConfig) => Partial<Kernels>;
  readonly config?: (right: OlmoHybridConfig) => OlmoHybridConfig;
  /** Changes a model that is built. */
  readonly model_change?: (model: OlmoHybridForCausalLM) => void;
  /** Runs the prompt. Default: all in one call. */
  readonly run?: (session: Session) => void;
}

/** Two calls, the second of which begins with what the first left. */
export function inTwoCalls({ ids, see }: Session): void {
  see(ids.slice(0, CUT));
  see(ids.slice(CUT));
}
