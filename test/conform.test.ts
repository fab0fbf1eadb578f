import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { describe, expect, it, vi } from 'vitest';
import { parseCommand } from '../src/conform/command.ts';
import { conform, type LevelResult, summarized } from '../src/conform/conform.ts';
import { type Answer, LEVELS, type LevelName, type Request, type Runtime } from '../src/conform/protocol.ts';
import { reportJunit } from '../src/conform/report_junit.ts';
import { startRuntime } from '../src/conform/runtime_process.ts';
import { loadModel } from '../src/load.ts';
import { writeTrace } from '../src/trace.ts';
import { ended, run, start } from './support/command_line.ts';
import { repository, temporaryFolder } from './support/models.ts';
import { changed, floatsOf, type TraceContents } from './support/traces.ts';

const RUNTIME = `'${process.execPath}' '${repository('test/conform/runtime.mjs')}'`;
const TRACE = `'${process.execPath}' '${repository('dist/cli/main.js')}' trace --model {model} --tokens {tokens} --output {output}`;
if (!existsSync(repository('dist/index.js'))) throw new Error('there is no dist/index.js: run `npm run build` before this test');

/** Levels one by one, up to the first that fails. */
async function untilFailure(runtime: Runtime, levels: readonly LevelName[] = LEVELS): Promise<LevelResult[]> {
  const results: LevelResult[] = [];
  for await (const result of conform(runtime, levels, await temporaryFolder())) {
    results.push(result);
    if (result.status === 'failed') break;
  }
  await runtime.close();
  return results;
}

/** A level and the two below it, to save time. Of levels of text, only others of text have anything to do with each other. */
function upTo(level: LevelName): LevelName[] {
  const isText = (name: LevelName) => name === 'tokenizer' || name === 'template';
  const ladder = LEVELS.filter((name) => isText(name) === isText(level));
  const at = ladder.indexOf(level);
  return ladder.slice(Math.max(0, at - 2), at + 1);
}

async function started(command: string, seconds = 120): Promise<Runtime> {
  return startRuntime(parseCommand(command), await temporaryFolder(), seconds);
}

/** A runtime of one function. */
function answering(answer: (request: Request) => Answer): Runtime {
  return { ask: async (request) => answer(request), close: async () => {} };
}

// The first level that must fail | the mistake of test/conform/mistakes.mjs | what is said of it
const MISTAKES: readonly (readonly [LevelName, string, RegExp])[] = [
  ['config', 'rope_on', /expected rope_theta \[null,null,null,null\], found \[null,null,null,10000\]/],
  ['config', 'key_heads_as_value_heads', /linear_num_value_heads 6, found 2/],
  ['tokenizer', 'bos_added', /expected an array of 34 for "The quick .*, found an array of 35/],
  ['template', 'trimmed_prompt', /expected "\\n" at character \d+, found ""/],
  ['op', 'decay_after_read', /expected o with an error of at most/],
  ['op', 'l2_eps_on_mean', /expected y with an error of at most/],
  ['layer', 'o_norm_eps_1e-6', /layers\.0\.linear_attn\.o_norm within .*o_norm_eps|eps/],
  ['layer', 'beta_without_2', /layers\.0\.linear_attn\.beta within .*factor 2/],
  [
    'prefill',
    'rotary_wraps_at_256',
    /expected logits with an error of at most .*: first at token 2\d\d; \d+ of \d+ tokens\. Trace it, and diff\.$/,
  ],
  [
    'decode',
    'conv_state_after_activation',
    /of at most .*: first at token 35, in call 2 of 36; 35 of 70 tokens\. Trace it in these calls, and diff\.$/,
  ],
  ['prefill_decode', 'oldest_input_lost_with_two_tokens', /of those of the uncut text, found .*: first at token \d+, in call \d+ of 35;/],
  ['state', 'recurrent_state_not_copied', /expected logits with an error of at most .*: first at token \d+, in call 2 of 2;/],
  ['sampler', 'temperature_last', /to draw from, the likeliest first/],
];

// Some seconds each, but for a busy machine.
describe('a runtime made of this library', { timeout: 300_000 }, () => {
  it('passes every level', async () => {
    const results = await untilFailure(await started(RUNTIME));
    expect(results.map(({ level, status }) => [level, status])).toEqual(LEVELS.map((level) => [level, 'passed']));
    for (const { cases } of results) expect(cases.every(({ status }) => status === 'passed')).toBe(true);
    expect(summarized('it', results)).toMatchObject({ conforms: true, reached: 'sampler' });
  });

  it.concurrent.each(MISTAKES)('fails at %s and not below with %s', async (level, mistake, said) => {
    const results = await untilFailure(await started(`${RUNTIME} --inject ${mistake}`), upTo(level));
    const failed = results.at(-1)!;
    expect([failed.level, failed.status]).toEqual([level, 'failed']);
    expect(failed.cases.find(({ status }) => status === 'failed')!.said).toMatch(said);
    expect(results.slice(0, -1).every(({ status }) => status === 'passed')).toBe(true);
  });

  it('is not held to what it does not support', async () => {
    const levels: readonly LevelName[] = ['config', 'template', 'state'];
    const results = await untilFailure(await started(`${RUNTIME} --without config,template`), levels);
    expect(results.map(({ status }) => status)).toEqual(['not supported', 'not supported', 'passed']);
    expect(summarized('it', results)).toMatchObject({ conforms: true, reached: 'state' });
    expect(summarized('it', results.slice(0, 2))).toMatchObject({ conforms: false, reached: null });
  });
});

describe('a runtime that does not do as it should', () => {
  const CONFIG: readonly LevelName[] = ['config'];
  const program = (code: string) => `'${process.execPath}' -e "${code}"`;

  it('is started again when it has ended, and its last words are shown', async () => {
    const [{ cases }] = (await untilFailure(await started(program(`console.error('no GPU'); process.exit(7)`)), ['state'])) as [
      LevelResult,
    ];
    expect(cases.length).toBeGreaterThan(1);
    for (const { status, said } of cases) {
      expect(status).toBe('failed');
      expect(said).toMatch(/^the program ended with exit status 7 before it answered.*no GPU$/s);
    }
  });

  it('fails a level at the first case that takes too long', async () => {
    const [{ cases }] = (await untilFailure(await started(program('setInterval(() => {}, 1000)'), 1), CONFIG)) as [LevelResult];
    expect(cases[0]!.said).toBe('1 seconds passed before it answered');
    expect(new Set(cases.slice(1).map(({ said }) => said))).toEqual(new Set([`not asked, since "${cases[0]!.name}" took too long`]));
  });

  // `sleep` holds the pipes of the shell that started it.
  it.skipIf(process.platform === 'win32')('is ended with all that it has started: at the time limit, and by Ctrl-C', async () => {
    const file = join(await temporaryFolder(), 'pid');
    const hanging = ['conform', '--runtime', `sh -c 'sleep 600 & echo $! > ${file}; wait'`, '--level', 'config', '--timeout'];
    const isAlive = () =>
      !/^$|^Z/.test(spawnSync('ps', ['-o', 'stat=', '-p', readFileSync(file, 'utf8').trim()], { encoding: 'utf8' }).stdout);
    const timed = await run(...hanging, '1');
    expect(timed).toMatchObject({ code: 1 });
    expect(timed.stdout).toContain('1 seconds passed before it answered');
    expect(isAlive()).toBe(false);

    rmSync(file);
    const child = start({}, ...hanging, '600');
    await vi.waitFor(() => expect(readFileSync(file, 'utf8')).toMatch(/^\d+\n$/), 30_000);
    child.kill('SIGINT');
    expect(await ended(child)).toMatchObject({ code: 130 });
    expect(isAlive()).toBe(false);
  });

  it('may end in good order after each answer', async () => {
    const code = `process.stdin.once('data', () => { console.log('{}'); process.exit() })`;
    const [{ cases }] = (await untilFailure(await started(program(code)), ['state'])) as [LevelResult];
    for (const { said } of cases) expect(said).toMatch(/expected .*file.*, found no such file/); // an answer, though a wrong one
  });

  it('may chatter, and say that it failed', async () => {
    const code = `process.stdin.on('data', () => { console.log('loading'); console.log('{oops'); console.log(JSON.stringify({ error: 'too small' })) })`;
    const [{ cases }] = (await untilFailure(await started(program(code)), CONFIG)) as [LevelResult];
    expect(cases[0]!.said).toBe('the runtime says: too small');
  });

  it('may log in JSON: only what an answer holds is one', async () => {
    const log = `console.log(JSON.stringify({ level: 'info', msg: 'request received' }))`;
    const answers = `const { level } = JSON.parse(line); ${log}; console.log(JSON.stringify(level === 'config' ? { vocab_size: 5 } : {}))`;
    const file = join(await temporaryFolder(), 'runtime.mjs');
    const code = `import { createInterface } from 'node:readline';\ncreateInterface({ input: process.stdin }).on('line', (line) => { ${answers} });\n`;
    writeFileSync(file, code);
    const command = `'${process.execPath}' '${file}'`;
    const [config] = (await untilFailure(await started(command), ['config'])) as [LevelResult];
    expect(config.cases[0]!.said).toBe('expected vocab_size 97, found 5');
    const [state] = (await untilFailure(await started(command), ['state'])) as [LevelResult];
    for (const { said } of state.cases) expect(said).toMatch(/expected .*file.*, found no such file/);
  });

  it.each<readonly [LevelName, RegExp]>([
    ['config', /expected vocab_size 97, found nothing/],
    ['tokenizer', /, found nothing/],
    ['template', /expected a text, found nothing/],
    ['op', /expected .*file.*, found no such file/],
    ['layer', /expected .*file.*, found no such file/],
    ['prefill', /expected .*file.*, found no such file/],
    ['sampler', /found nothing/],
  ])('fails at %s when it answers with nothing', async (level, said) => {
    const [{ cases }] = (await untilFailure(
      answering(() => ({ status: 'answered', fields: {} })),
      [level],
    )) as [LevelResult];
    expect(cases.every(({ status }) => status === 'failed')).toBe(true);
    expect(cases[0]!.said).toMatch(said);
  });
});

describe('a trace', () => {
  /** What is said of our trace of `nope` with a change. */
  async function saidOf(change: (contents: TraceContents) => void): Promise<string> {
    const runtime: Runtime = {
      async ask({ case: name, model, tokens, output }) {
        if (name !== 'nope') return { status: 'not supported', why: '' };
        const load = async () => (await loadModel(model!)).model;
        await writeTrace(output!, model!, tokens!, load, { kernels: 'wasm', mode: 'strict', producer: 'test' });
        await changed(output!, dirname(output!), basename(output!), change);
        return { status: 'answered', fields: {} };
      },
      close: async () => {},
    };
    const [{ cases }] = (await untilFailure(runtime, ['layer'])) as [LevelResult];
    const { status, said } = cases[0]!;
    return `${status}: ${said}`;
  }

  it('needs the residual stream behind every layer, and nothing else', async () => {
    const stream = (contents: TraceContents, but = '') => {
      for (const name of contents.tensors.keys()) if (!/^model\.layers\.\d$/.test(name) || name === but) contents.tensors.delete(name);
    };
    expect(await saidOf((contents) => stream(contents))).toBe('passed: 7 ops');
    expect(await saidOf((contents) => stream(contents, 'model.layers.3'))).toMatch(
      /^failed: expected a trace with model\.layers\.3, found .*: no /,
    );
    expect(await saidOf(({ tensors }) => tensors.clear())).toBe('not supported: the file holds no layers, only logits');
  });

  it('fails when shapes, tokens or values are other ones', async () => {
    const flat = ({ tensors }: TraceContents) => {
      const beta = tensors.get('model.layers.0.linear_attn.beta')!;
      tensors.set(beta.name, { ...beta, shape: [...beta.shape].reverse() });
    };
    expect(await saidOf(flat)).toBe('failed: expected the shape of model.layers.0.linear_attn.beta in docs/trace_format.md, found [3, 70]');
    const otherTokens = ({ metadata }: TraceContents) => metadata.set('tokens_sha256', 'another');
    expect(await saidOf(otherTokens)).toMatch(/^failed: .*other tokens/);
    const off = ({ tensors }: TraceContents) => {
      const values = floatsOf(tensors.get('model.layers.2.self_attn.q_norm')!);
      for (let i = 0; i < values.length; i++) values[i]! *= 1.00001;
    };
    expect(await saidOf(off)).toMatch(/^failed: expected model\.layers\.2\.self_attn\.q_norm within .*, found a relative RMS of 1\.0e-5/);
  });

  it('that is wrong in no known way is told of no mistake: the other one is the truth', async () => {
    const sink = ({ tensors }: TraceContents) => {
      const values = floatsOf(tensors.get('model.layers.2.self_attn.attention')!);
      for (let i = 0; i < values.length; i++) values[i]! *= 0.9;
    };
    expect(await saidOf(sink)).toMatch(/self_attn\.attention within .*, found a relative RMS of 1\.0e-1$/);
  });
});

describe('a command that is run for each case', { timeout: 120_000 }, () => {
  it('is asked for a trace or logits, and passed over at all other levels', async () => {
    const results = await untilFailure(await started(TRACE), ['config', 'layer', 'decode', 'state']);
    expect(results.map(({ status }) => status)).toEqual(['not supported', 'passed', 'not supported', 'not supported']);
    const said = results.map(({ cases: [first] }) => first!.said);
    expect(said[0]).toBe('the command takes no requests on stdin');
    expect(said[1]).toMatch(/^\d+ ops$/);
    expect(said[2]).toBe('the command has no {calls}');
  });

  it('gets words, not a shell', () => {
    const words = (text: string) => parseCommand(text).words;
    expect(words(`a 'b c' "d 'e'" f\\ g h""`)).toEqual(['a', 'b c', "d 'e'", 'f g', 'h']);
    expect(words(`a $HOME '\\' C:\\dir "\\"" ; ''`)).toEqual(['a', '$HOME', '\\', 'C:\\dir', '"', ';', '']);
    expect([...parseCommand('x --m={model} {tokens} {output} {calls}').placeholders].sort()).toEqual([
      'calls',
      'model',
      'output',
      'tokens',
    ]);
  });
});

describe('the command', () => {
  const TEMPLATE = ['conform', '--runtime', `${RUNTIME} --inject trimmed_prompt`, '--level', 'template', 'sampler'];

  it('prints a report, writes JUnit XML and exits with 1 when the runtime does not conform', async () => {
    const junit = join(await temporaryFolder(), 'report.xml');
    const { code, stdout, stderr } = await run(...TEMPLATE, '--junit', junit);
    expect(code).toBe(1);
    expect(stdout).toMatch(
      /^level +cases +worst +bound\ntemplate +8\/50 {2}failed\n( {2}chat \d+: expected .*\n){5} {2}and 37 more\nsampler +60\/60/,
    );
    expect(stdout).toMatch(/\nlevel reached: none; the runtime does not conform\n$/);
    expect(stderr).toMatch(/^template: failed, 50 cases in .*\nsampler: passed, 60 cases in .*\n$/);
    const xml = readFileSync(junit, 'utf8');
    expect(xml).toMatch(
      /^<\?xml version="1\.0" encoding="UTF-8"\?>\n<testsuites name="olmo-hybrid conform: .*" tests="110" failures="42" /,
    );
    expect(xml.match(/<testsuite /g)).toHaveLength(2);
    expect(xml.match(/<testcase /g)).toHaveLength(110);
    expect(xml.match(/<failure message="expected &quot;\\n&quot;/g)).toHaveLength(42);
  });

  it('prints the report before it fails to write it, and writes it although nobody reads what it prints', async () => {
    const dir = await temporaryFolder();
    const slow = ['conform', '--runtime', RUNTIME, '--level', 'sampler', '--junit'];
    const gone = join(dir, 'gone');
    mkdirSync(gone);
    const child = start({}, ...slow, join(gone, 'report.xml'));
    child.stderr!.once('data', () => rmSync(gone, { recursive: true })); // the level is over
    const unread = start({}, ...slow, join(dir, 'report.xml'));
    unread.stdout!.destroy();
    const [failed, written] = await Promise.all([ended(child), ended(unread)]);
    expect(failed.code === 1 ? failed.stdout : 'written before it was gone').toMatch(/^level .*\nsampler|^written/);
    expect(written.code).toBe(0);
    expect(readFileSync(join(dir, 'report.xml'), 'utf8')).toContain('<testsuites');
  });

  it('prints one object with --json and exits with 0 when it does', async () => {
    const { code, stdout } = await run('conform', '--runtime', RUNTIME, '--level', 'sampler', '--json');
    expect(code).toBe(0);
    expect(JSON.parse(stdout)).toMatchObject({ conforms: true, reached: 'sampler', levels: [{ level: 'sampler', status: 'passed' }] });
  });

  it('escapes what XML has other uses for', () => {
    const one = { name: '<a> & "b"', status: 'failed', measured: null, said: 'x\u0000]]>\ny', seconds: 0 } as const;
    const xml = reportJunit(summarized('it', [{ level: 'op', status: 'failed', measure: null, cases: [one], seconds: 0 }]));
    expect(xml).toContain('name="&lt;a&gt; &amp; &quot;b&quot;"');
    expect(xml).toContain('<failure message="x\ufffd]]&gt;">x\ufffd]]&gt;\ny</failure>');
  });
});
