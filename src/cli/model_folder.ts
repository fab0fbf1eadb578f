import type { ModelFiles } from '../checkpoint/model_files.ts';
import { hubEnvironment } from '../hub/environment.ts';
import { locateModel, modelFiles } from '../hub/locate.ts';
import type { Need } from '../hub/needed_files.ts';
import type { PullOptions } from '../hub/pull.ts';
import { embeddedModel } from '../package_files.ts';
import { interruption, note, ProgressLine } from './terminal.ts';

/**
 * The folder of the model that an option names: a path, `org/name` or `org/name@revision`, which is downloaded where it is not in the cache.
 * @param model nothing for the embedded one
 * @param signal ends a download; what has come is kept
 */
export async function modelFolder(
  model: string | undefined,
  {
    need = 'weights',
    weights,
    signal,
  }: { readonly need?: Need; readonly weights?: string | undefined; readonly signal?: AbortSignal } = {},
): Promise<string> {
  if (model === undefined) return embeddedModel;
  return await withDownloadLine(async (telling) => {
    return await locateModel(model, { environment: await hubEnvironment(), need, weights, signal, ...telling });
  });
}

/** The same for a look at headers: where the model is on the Hub alone, its files there. */
export async function modelFilesOf(model: string | undefined, weights: string | undefined): Promise<string | ModelFiles> {
  if (model === undefined) return embeddedModel;
  const signal = interruption();
  return await withDownloadLine(async (telling) => {
    return await modelFiles(model, { environment: await hubEnvironment(), weights, signal, ...telling });
  });
}

/** Runs what may download, with a line that says how far it is, why it waits and why it tries again. */
export async function withDownloadLine<T>(
  work: (telling: Required<Pick<PullOptions, 'onProgress' | 'onRetry' | 'onWait'>>) => Promise<T>,
): Promise<T> {
  const line = new ProgressLine('fetching');
  let begun = false;
  const tell = (text: string) => {
    line.end();
    note(text);
  };
  try {
    return await work({
      onProgress: (done, total, file) => {
        begun = true;
        line.update(done, total, file);
      },
      onRetry: ({ where, found }, pause_ms) => tell(`${where}: ${found}; trying again in ${(pause_ms / 1000).toFixed(0)} s`),
      onWait: (file) => tell(`${file}: another process fetches it; waiting for that`),
    });
  } catch (error) {
    if (begun && error instanceof DOMException && error.name === 'AbortError') tell('\nInterrupted. The same command goes on from here.');
    throw error;
  } finally {
    line.end();
  }
}
