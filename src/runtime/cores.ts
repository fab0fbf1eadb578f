/**
 * Cores of this machine that compute independently of each other; two threads of one core share its arithmetic and gain nothing here.
 * Where the system does not tell (a page, Windows), half of the threads that it has.
 */
export async function physicalCores(): Promise<number> {
  if (typeof process === 'undefined') return Math.max(1, Math.ceil((navigator.hardwareConcurrency ?? 1) / 2));
  const { availableParallelism } = await import('node:os');
  const available = availableParallelism();
  if (process.platform === 'darwin') return available;
  if (process.platform !== 'linux') return Math.max(1, Math.ceil(available / 2));
  const { readFile } = await import('node:fs/promises');
  const text = await readFile('/proc/cpuinfo', 'utf8').catch(() => '');
  const field = (processor: string, name: string) => new RegExp(`^${name}\\s*:\\s*(\\d+)$`, 'm').exec(processor)?.[1];
  const cores = text.split('\n\n').map((processor) => [field(processor, 'physical id'), field(processor, 'core id')]);
  const named = new Set(cores.filter(([, core]) => core !== undefined).map(String));
  return named.size === 0 ? available : Math.min(available, named.size);
}
