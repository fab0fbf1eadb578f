import type { ModelFiles } from '../checkpoint/model_files.ts';
import { HubError } from '../errors.ts';
import { cachedRepository, readRefs } from './cache.ts';
import { HubClient } from './client.ts';
import { SUMS } from './digests.ts';
import { formatModelId, type ModelId, parseModelId } from './model_id.ts';
import { hasNeeded, isBegun, lostFiles } from './needed_files.ts';
import { type PullOptions, pull } from './pull.ts';
import { remoteFiles } from './remote_model.ts';
import { openRepository } from './repository.ts';

export interface LocateOptions extends PullOptions {
  /** Weights quantised so are taken before the original ones. */
  readonly weights?: string | undefined;
}

/**
 * Finds a model's folder (Node only): one on disk is itself; `org/name` and `org/name@revision` are looked for in the cache, without a request, and
 * downloaded when they are not there. What a branch is now is asked by `pull` alone.
 * @param model a path or an id; where a folder has the name of an id it is taken
 * @throws {HubError} when it has to be downloaded and cannot
 */
export async function locateModel(model: string, options: LocateOptions): Promise<string> {
  const id = await idOf(model);
  if (id === null) return model;
  const cached = await cachedFolder(id, options);
  return cached ?? (await pull(id, options)).folder;
}

/**
 * The files of a model without downloading them: those of its folder, where there is one here or in the cache, else those on the Hub, read by ranges.
 * @throws {HubError} when they cannot be had
 */
export async function modelFiles(model: string, options: LocateOptions): Promise<string | ModelFiles> {
  const id = await idOf(model);
  if (id === null) return model;
  const cached = await cachedFolder(id, options);
  if (cached !== null) return cached;
  const client = new HubClient(id, options);
  return remoteFiles(client, await openRepository(client));
}

/** The id of a model that is not a folder here; null for a folder, also for one that is missing. */
export async function idOf(model: string): Promise<ModelId | null> {
  const id = parseModelId(model);
  if (id === null) return null;
  const { stat } = await import('node:fs/promises');
  const stats = await stat(model).catch(() => null);
  return stats ? null : id;
}

/**
 * Looks a model up in the cache; no request is made. Where the Hub's files and what was quantised are of different commits, the commit that was asked
 * for last is taken, and the other one only where nothing that is needed of this one was ever there.
 * @returns its folder, null when it is not there with all that is needed
 * @throws {HubError} when a quantised folder has lost a file and nothing else will do
 */
export async function cachedFolder(
  id: ModelId,
  { environment, need = 'weights', weights }: Pick<LocateOptions, 'environment' | 'need' | 'weights'>,
): Promise<string | null> {
  const { refs, snapshots, quantised } = cachedRepository(environment, id);
  const asked = weights === 'q8' || weights === 'q4' ? [weights] : [];
  const any = weights === undefined ? ['q8', 'q4'] : [];
  for (const commit of await readRefs([refs, quantised.refs], id.revision)) {
    const snapshot = `${snapshots}/${commit}`;
    const inFormat = (format: string) => `${quantised.snapshots}/${commit}/${format}`;
    for (const folder of [...asked.map(inFormat), snapshot, ...any.map(inFormat)]) {
      if (await hasNeeded(folder, need).catch(() => false)) return folder;
    }
    // The original would be fetched otherwise, several times as large.
    for (const format of [...asked, ...any]) {
      const [lost] = await lostFiles(inFormat(format), need);
      if (lost === undefined) continue;
      const fix = `Run \`olmo-hybrid pull ${formatModelId(id)} --weights ${format} --only-quantised\`.`;
      throw new HubError({ where: inFormat(format), expected: `${lost}, which ${SUMS} lists`, found: 'no such file', fix });
    }
    if (await isBegun(snapshot, need)) return null;
  }
  return null;
}
