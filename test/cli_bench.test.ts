import { describe, expect, it } from 'vitest';
import type { BenchResult } from '../src/bench/run.ts';
import { run } from './support/command_line.ts';
import { changedModel } from './support/models.ts';

/** A model of few positions, for as long as the test runs. */
const shortModel = (positions: number) =>
  changedModel('f32', ({ config }) => {
    config['max_position_embeddings'] = positions;
  });

describe('bench', () => {
  it('measures the embedded model when it is given nothing', async () => {
    const { code, stdout, stderr } = await run('bench', '--rounds', '1', '--json');
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
    const result = JSON.parse(stdout) as BenchResult;
    expect(result).toMatchObject({ shape: 'embedded', weights: 'stored', kv: 'f16', mode: 'fast', rounds: 1, contexts: {} });
    expect(Object.keys(result.prefill)).toEqual(['512', '2048']);
    expect(result.decode.bytes_per_token).toBeGreaterThan(1e6);
    for (const shares of [result.kernels.prefill, result.kernels.decode]) {
      expect(Object.values(shares).reduce((sum, share) => sum + share)).toBeCloseTo(1, 6);
    }
    const { memory_read_gbps, f32_gflops, i16_gops } = result.limits;
    for (const limit of [memory_read_gbps, f32_gflops, i16_gops]) expect(limit).toBeGreaterThan(0);
  });

  it('leaves out a prompt that the model has no positions for', async () => {
    const model = await shortModel(1000);
    const { code, stdout } = await run('bench', '--model', model, '--rounds', '1', '--json', '--context', '1000');
    expect(code).toBe(0);
    const { prefill, contexts } = JSON.parse(stdout) as BenchResult;
    expect([Object.keys(prefill), Object.keys(contexts)]).toEqual([['512'], ['1000']]);
  });

  it('refuses a model that is too short for its shortest prompt, and a context beyond the model', async () => {
    const short = await run('bench', '--model', await shortModel(575));
    expect(short).toMatchObject({ code: 1, stdout: '' });
    expect(short.stderr).toContain('bench: expected a model of at least 576 positions, found 575.');
    const long = await run('bench', '--context', '600,2049');
    expect(long).toMatchObject({ code: 1, stdout: '' });
    expect(long.stderr).toContain(
      'expected a model of at least 2049 positions, found 2048. Give positions of --context that the model has.',
    );
  });

  it('prints rates as plain numbers', async () => {
    const { stdout } = await run('bench', '--rounds', '1');
    expect(stdout).toMatch(/^prefill 512 +\d+(\.\d+)? tokens\/s/m);
    expect(stdout).toMatch(/^decode 512 +\d+(\.\d+)? tokens\/s/m);
    expect(stdout).not.toContain('e+');
  });
});
