import { execFile } from 'node:child_process';
import { existsSync, mkdirSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import type { Bits } from './digest.ts';

/** A JavaScript engine that can compute the digests, or the reason why it is not there. */
export type Engine =
  | {
      readonly name: string;
      readonly run: () => Promise<Bits>;
      /** Runs the tests of fast mode's kernels, of which each engine may have others, and of the machine code made of them; of Node only. Throws what they print if one fails. */
      readonly testFastMode?: () => Promise<void>;
    }
  | { readonly name: string; readonly missing: string };

const FAST_MODE = [
  ...['quantised', 'relaxed', 'wide', 'joined', 'attention_f16', 'gated_delta_rule'].map((name) => `test/kernels/${name}.test.ts`),
  'test/fast.test.ts',
];

const run = promisify(execFile);
const pathOf = (relative: string) => fileURLToPath(new URL(relative, import.meta.url));

/** The Node that runs this. */
export function installedNode(): Engine {
  return nodeAt(process.execPath, `Node ${process.versions.node} (installed)`);
}

/** The newest Node of a major version, from the package registry; kept in node_modules/.cache for the next time. */
export async function nodeFromRegistry(major: number): Promise<Engine> {
  const prefix = pathOf(`../../node_modules/.cache/engines/node${major}`);
  // The package `node` fetches one of these in an install script; asked for by name, they need none.
  const platform = process.platform === 'win32' ? 'win' : process.platform;
  const kind = platform === 'darwin' && process.arch === 'arm64' ? 'node-bin' : 'node';
  const name = `${kind}-${platform}-${process.arch}`;
  const path = `${prefix}/node_modules/${name}/bin/node${platform === 'win' ? '.exe' : ''}`;
  try {
    if (!existsSync(path)) {
      mkdirSync(prefix, { recursive: true });
      await run('npm', ['install', '--prefix', prefix, '--no-save', '--ignore-scripts', '--no-audit', '--no-fund', `${name}@${major}`]);
    }
    const { stdout } = await run(path, ['--version']);
    return nodeAt(path, `Node ${stdout.trim().slice(1)}`);
  } catch (error) {
    const { message } = error as Error;
    return { name: `Node ${major}`, missing: /npm error .+/.exec(message)?.[0] ?? message };
  }
}

function nodeAt(path: string, name: string): Engine {
  return {
    name,
    async run() {
      const { stdout } = await run(path, [pathOf('./in_node.js')]);
      return JSON.parse(stdout) as Bits;
    },
    async testFastMode() {
      const vitest = pathOf('../../node_modules/vitest/vitest.mjs');
      try {
        await run(path, [vitest, 'run', ...FAST_MODE], { cwd: pathOf('../..') });
      } catch (error) {
        throw new Error((error as { stdout: string }).stdout, { cause: error });
      }
    },
  };
}
