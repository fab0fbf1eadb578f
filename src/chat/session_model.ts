import { openCheckpointFolder } from '../checkpoint/checkpoint_folder.ts';
import { quantisationOf } from '../checkpoint/quantised.ts';
import { digestOfWeights } from '../checkpoint/weights_digest.ts';
import type { OlmoHybridConfig } from '../config.ts';
import type { LoadOptions, ModelPlan } from '../load.ts';

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
  return { weights_sha256, config: plan.config, engine: { weights: formats(plan), 'keys and values': plan.kv, kernels, mode: plan.mode } };
}

/** `190 BF16, 2 F32`. */
function formats({ placement }: ModelPlan): string {
  const counts = new Map<string, number>();
  for (const parameter of placement.parameters) {
    if (parameter.kind === 'matrix') counts.set(parameter.weight.format, (counts.get(parameter.weight.format) ?? 0) + 1);
  }
  return [...counts].map(([format, count]) => `${count} ${format}`).join(', ');
}
