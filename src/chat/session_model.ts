import { openCheckpointFolder } from '../checkpoint/checkpoint_folder.ts';
import { quantisationOf } from '../checkpoint/quantised.ts';
import { digestOfWeights } from '../checkpoint/weights_digest.ts';
import type { OlmoHybridConfig } from '../config.ts';
import type { LoadOptions, ModelPlan } from '../load.ts';
import { formatCounts } from '../model/format_counts.ts';

/** What a session can be gone on with by. */
export interface SessionModel {
  /** sha256 of the weights, by `digestOfWeights`; of a quantised folder, of those that were quantised. */
  readonly weights_sha256: string;
  readonly config: OlmoHybridConfig;
  /** What the bits of the state depend on besides, by name: how the weights lie in memory, keys and values, kernels, mode. */
  readonly engine: Readonly<Record<string, string>>;
}

/**
 * Describes a loaded model (Node only). Reads all weights, unless the folder was quantised and says of which.
 * @param onRead Called with the number of bytes that have been read.
 * @throws {CheckpointError} when the files cannot be read
 */
export async function sessionModel(
  dir: string,
  plan: ModelPlan,
  kernels: NonNullable<LoadOptions['kernels']>,
  onRead?: (bytes: number) => void,
): Promise<SessionModel> {
  const folder = await openCheckpointFolder(dir);
  const quantisation = quantisationOf(folder.files);
  await folder.close();
  const weights_sha256 = quantisation?.source_weights_sha256 ?? (await digestOfWeights(dir, onRead));
  const formats = Object.entries(formatCounts(plan.placement)).map(([format, count]) => `${count} ${format}`);
  const engine = { weights: formats.join(', '), 'keys and values': plan.kv, kernels, mode: plan.mode };
  return { weights_sha256, config: plan.config, engine };
}
