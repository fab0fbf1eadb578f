import { embeddedModel, loadModel, type OlmoHybridForCausalLM } from '../dist/index.js';
import { measure, type Subject, show } from './measure.js';

const PROMPT = 256;

/** A prompt of T tokens from empty caches. */
export function prefill(model: OlmoHybridForCausalLM, T: number, name: string): Subject {
  const tokens = Array.from({ length: T }, (_, i) => (i * 7) % model.config.vocab_size);
  return {
    name: `prefill ${T}, ${name}`,
    unit: 'token/s',
    run() {
      model.reset();
      model.forward(tokens);
      return T;
    },
  };
}

/** One token after another, until the caches are full. */
export function decode(model: OlmoHybridForCausalLM, name: string): Subject {
  return {
    name: `decode, ${name}`,
    unit: 'token/s',
    run() {
      if (model.position === model.context) model.reset();
      model.forward([1]);
      return 1;
    },
  };
}

/** Prefill and decode of the embedded model with one thread, as lines of markdown. */
export async function modelTable(): Promise<string[]> {
  const subjects: Subject[] = [];
  for (const [kernels, mode, T] of [
    ['wasm', 'fast', PROMPT],
    ['wasm', 'strict', PROMPT],
    ['reference', 'strict', 8],
  ] as const) {
    const { model } = await loadModel(embeddedModel, { kernels, mode, context: 2 * PROMPT });
    subjects.push(prefill(model, T, `${kernels}, ${mode}`), decode(model, `${kernels}, ${mode}`));
  }
  const rows = (await measure(subjects)).map((rate) => `| ${rate.name} | ${show(rate)} ${rate.unit} |`);
  return ['| embedded model | rate |', '|---|---|', ...rows];
}
