import type { LayerType, OlmoHybridConfig, RopeParameters } from '../config.ts';
import type { ModelPlan } from '../load.ts';
import { physicalCores } from '../runtime/cores.ts';
import type { EngineFlags } from './options.ts';
import { scaled } from './terminal.ts';

/** What model this is, in a line. */
export function headline(plan: ModelPlan, model: string | undefined): string {
  const name = model ?? 'OLMo Hybrid, embedded demo model';
  const attention = plan.config.layer_types.filter((type) => type !== 'linear_attention').length;
  const linear = plan.config.layer_types.length - attention;
  return `${name} · ${scaled(parameterCount(plan))} parameters · ${linear} Gated DeltaNet + ${attention} attention layers`;
}

/** How the engine differs from its defaults. */
export async function engine({ build, threads }: ModelPlan, { kernels, weights }: EngineFlags): Promise<string[]> {
  const facts = kernels !== 'wasm' ? [`${kernels} kernels`] : build === 'strict' ? ['strict build'] : [];
  if (kernels === 'wasm' && threads !== (await physicalCores())) facts.push(threads === 1 ? '1 thread' : `${threads} threads`);
  if (weights !== undefined) facts.push(weights);
  return facts;
}

/** Numbers that were learnt; tied ones count once. */
export function parameterCount({ config, placement }: ModelPlan): number {
  const own = placement.parameters.filter(({ name }) => !(config.tie_word_embeddings && name === 'lm_head.weight'));
  return own.reduce((sum, { shape }) => sum + shape.reduce((product, size) => product * size, 1), 0);
}

/** The order of layers in short, such as `8 x [linear x3, full]`. */
export function layerPattern(types: readonly LayerType[]): string {
  let period = 1;
  while (!types.every((type, i) => type === types[i % period]) || types.length % period !== 0) period++;
  const runs: { type: string; count: number }[] = [];
  for (const type of types.slice(0, period)) {
    const name = type.replace('_attention', '');
    const last = runs.at(-1);
    if (last?.type === name) last.count++;
    else runs.push({ type: name, count: 1 });
  }
  const once = runs.map(({ type, count }) => (count > 1 ? `${type} x${count}` : type)).join(', ');
  return period === types.length ? once : `${types.length / period} x [${once}]`;
}

/** What tells the model the order of tokens, besides its recurrent layers. */
export function positionEmbedding({ layer_types, rope, sliding_window }: OlmoHybridConfig): string {
  const types = (['full_attention', 'sliding_attention'] as const).filter((type) => layer_types.includes(type));
  const kinds = types.map((type) => {
    const kind = ropeKind(rope[type]);
    return type === 'full_attention' ? kind : `${kind} in layers that see ${sliding_window} tokens`;
  });
  return [...new Set(kinds)].join('; ') || 'none needed: no attention layers';
}

function ropeKind(rope: RopeParameters | null): string {
  if (rope === null) return 'NoPE (attention without position embedding)';
  const theta = `RoPE, theta ${rope.rope_theta}`;
  return rope.rope_type === 'yarn' ? `${theta}, YaRN factor ${rope.factor} from ${rope.original_max_position_embeddings} tokens` : theta;
}
