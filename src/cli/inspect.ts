import type { Command } from 'commander';
import { type CheckpointFolder, openCheckpointFolder } from '../checkpoint/checkpoint_folder.ts';
import type { ModelFiles } from '../checkpoint/model_files.ts';
import { checkQuantisedFiles, quantisationOf } from '../checkpoint/quantised.ts';
import type { OlmoHybridConfig } from '../config.ts';
import { type LoadOptions, type ModelPlan, planModelFrom, readConfig } from '../load.ts';
import { formatCounts } from '../model/format_counts.ts';
import { embeddedModel } from '../package_files.ts';
import { physicalCores } from '../runtime/cores.ts';
import { hasByteDots, hasRelaxedSimd, hasWideVectors } from '../runtime/wasm_module.ts';
import { layerPattern, parameterCount, positionEmbedding } from './model_facts.ts';
import { modelFilesOf } from './model_folder.ts';
import { addModelOption, addPlanOptions, integer } from './options.ts';
import { onStdout, scaled } from './terminal.ts';

interface Flags extends Pick<LoadOptions, 'context' | 'weights' | 'mode' | 'threads' | 'kv'> {
  readonly model?: string;
  readonly json?: true;
}

export function addInspect(program: Command): void {
  const command = program.command('inspect').description('describe a model and the memory that it would take, without loading it');
  addModelOption(command)
    .option('--context <n>', 'tokens to plan memory for (default: all that the model knows, at most 4096)', integer('--context', 1))
    .option('--json', 'print one object');
  addPlanOptions(command, 'fast').action(async ({ model, threads, json, ...flags }: Flags) => {
    const files = await modelFilesOf(model, flags.weights);
    const facts = await factsOf(model ?? embeddedModel, files, { ...flags, threads: threads ?? (await physicalCores()) });
    process.stdout.write(json ? `${JSON.stringify(facts, null, 2)}\n` : page(facts));
  });
}

type Facts = Awaited<ReturnType<typeof factsOf>>;

async function factsOf(model: string, files: string | ModelFiles, options: LoadOptions) {
  const config = await readConfig(files);
  const folder = await openCheckpointFolder(files);
  try {
    checkQuantisedFiles(folder.files);
    return await factsOfFolder(model, config, folder, options, typeof files !== 'string');
  } finally {
    await folder.close();
  }
}

async function factsOfFolder(model: string, config: OlmoHybridConfig, folder: CheckpointFolder, options: LoadOptions, on_the_hub: boolean) {
  const plan = await planModelFrom(config, folder.tensors, options);
  const quantised = quantisationOf(folder.files);
  const { placement, context, prefill_chunk, stored_bytes, kv, mode, build, threads, too_large } = plan;
  return {
    model,
    layer_pattern: layerPattern(config.layer_types),
    position_embedding: positionEmbedding(config),
    parameters: parameterCount(plan),
    on_the_hub,
    dtypes: dtypeCounts(folder),
    quantised,
    stored_bytes,
    weights: formatCounts(placement),
    mode,
    build,
    relaxed_simd: await hasRelaxedSimd(),
    byte_dots: await hasByteDots(),
    wide_vectors: hasWideVectors(),
    threads,
    memory: {
      context,
      prefill_chunk,
      kv,
      total_bytes: placement.total_bytes,
      banks: placement.banks.map(({ persistent, scratch }, bank) => {
        const layers = config.layer_types.flatMap((_, i) => (placement.layers[i] === bank ? [i] : []));
        return { layers, persistent_bytes: persistent, scratch_bytes: scratch };
      }),
    },
    too_large,
    plans: options.weights === undefined && quantised === null ? await plansOf(folder, plan, options) : [],
    unknown_keys: config.unknown_keys,
    config,
  };
}

/** What the model would take in each format that it can be loaded in. */
async function plansOf({ tensors }: CheckpointFolder, stored: ModelPlan, options: LoadOptions) {
  const plans = [{ weights: 'as stored', total_bytes: stored.placement.total_bytes, fits: stored.too_large === null }];
  for (const weights of ['q8', 'q4'] as const) {
    const { placement, too_large } = await planModelFrom(stored.config, tensors, { ...options, weights });
    plans.push({ weights, total_bytes: placement.total_bytes, fits: too_large === null });
  }
  return plans;
}

/** How many tensors are stored in each dtype. */
function dtypeCounts({ tensors }: CheckpointFolder): Record<string, number> {
  const dtypes: Record<string, number> = {};
  for (const { dtype } of tensors.values()) dtypes[dtype] = (dtypes[dtype] ?? 0) + 1;
  return dtypes;
}

function page({ model, config, memory, ...facts }: Facts): string {
  const rows: [string, string][] = [
    ...(facts.on_the_hub ? [['from', 'the Hub, by its headers alone; nothing was downloaded'] satisfies [string, string]] : []),
    ['architecture', config.model_type],
    ['layers', `${config.num_hidden_layers}: ${facts.layer_pattern}`],
    ['position', facts.position_embedding],
    ['parameters', `${facts.parameters.toLocaleString('en')} (${scaled(facts.parameters)})`],
    ['stored', `${scaled(facts.stored_bytes, 'B')}: ${listed(facts.dtypes, 'tensors')}`],
    ...(facts.quantised ? [['quantised', quantisedRow(facts.quantised)] satisfies [string, string]] : []),
    ['widths', `hidden ${config.hidden_size}, intermediate ${config.intermediate_size}, vocabulary ${config.vocab_size}`],
    ['attention', `${config.num_attention_heads} heads of ${config.head_dim}, ${config.num_key_value_heads} for keys and values`],
    ...linearRows(config),
    ['context', `${config.max_position_embeddings} tokens`],
    ['end of text', config.eos_token_id.join(', ') || 'no token'],
    ['weights', `${listed(facts.weights, 'matrices')} in memory`],
    [
      'kernels',
      `${facts.build} build for --mode ${facts.mode}, ${facts.threads === 1 ? '1 thread' : `${facts.threads} threads`}, vectors of ${facts.wide_vectors ? 256 : 128} bits; ${relaxed(facts)}`,
    ],
    [
      'memory',
      `${scaled(memory.total_bytes, 'B')} for ${memory.context} tokens, keys and values in ${memory.kv}, ${memory.prefill_chunk} in one pass`,
    ],
    ...memory.banks.map(({ layers, persistent_bytes, scratch_bytes }, i): [string, string] => {
      const held = layers.length > 0 ? `layers ${layers[0]} to ${layers.at(-1)}` : 'no layers';
      return [`  bank ${i}`, `${held}: ${scaled(persistent_bytes, 'B')} of weights and caches, ${scaled(scratch_bytes, 'B')} of scratch`];
    }),
  ];
  for (const { weights, total_bytes, fits } of facts.plans) {
    rows.push([`  ${weights}`, `${scaled(total_bytes, 'B')}, ${fits ? 'fits' : 'does not fit'} here`]);
  }
  if (facts.too_large) rows.push(['too large', `this machine has ${facts.too_large.found}. ${facts.too_large.fix}`]);
  if (facts.unknown_keys.length > 0) rows.push(['notice', `config.json has unknown keys, passed over: ${facts.unknown_keys.join(', ')}`]);
  return `${onStdout.bold(model)}\n${rows.map(([name, value]) => `${onStdout.dim(name.padEnd(14))}${value}\n`).join('')}`;
}

function quantisedRow({ weights, source_weights_sha256, source_repository, source_commit }: NonNullable<Facts['quantised']>): string {
  const source = source_repository === null ? `weights of sha256 ${source_weights_sha256}` : `${source_repository} at ${source_commit}`;
  return `${weights} by olmo-hybrid, from ${source}`;
}

/** `2 matrices Q8, 7 matrices Q4`. */
function listed(counts: Record<string, number>, noun: string): string {
  return Object.entries(counts)
    .map(([name, count]) => `${count} ${noun} ${name}`)
    .join(', ');
}

function relaxed({ mode, relaxed_simd, byte_dots }: Pick<Facts, 'mode' | 'relaxed_simd' | 'byte_dots'>): string {
  if (!relaxed_simd) return 'this engine has no relaxed SIMD';
  const has = `this engine has relaxed SIMD${byte_dots ? ' and dots of bytes in one instruction' : ''}`;
  return mode === 'fast' ? has : `${has}, which --mode fast takes`;
}

function linearRows(config: Facts['config']): [string, string][] {
  if (!config.layer_types.includes('linear_attention')) return [];
  const { linear_num_key_heads: Hk, linear_num_value_heads: H, linear_key_head_dim: Dk, linear_value_head_dim: Dv } = config;
  const beta = config.linear_allow_neg_eigval ? 'beta in (0, 2)' : 'beta in (0, 1)';
  return [
    ['DeltaNet', `${Hk} key heads of ${Dk}, ${H} value heads of ${Dv}, convolution over ${config.linear_conv_kernel_dim} tokens, ${beta}`],
  ];
}
