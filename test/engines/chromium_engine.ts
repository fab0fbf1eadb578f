import { existsSync, readdirSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { extname } from 'node:path';
import { chromium } from 'playwright-core';
import type { Bits } from './digest.ts';
import type { WeightFiles } from './in_page.ts';
import type { Engine } from './node_engine.ts';

const EXECUTABLE = process.env.CHROMIUM ?? '/usr/bin/chromium';
const ROOT = new URL('../../', import.meta.url);
const SERVED = /^\/(dist|build|golden\/models)\//;
const TYPES: Readonly<Record<string, string>> = { '.js': 'text/javascript', '.json': 'application/json', '.wasm': 'application/wasm' };

/** The Chromium of the system, without a window. */
export async function installedChromium(): Promise<Engine> {
  if (!existsSync(EXECUTABLE)) return { name: 'Chromium', missing: `no ${EXECUTABLE}; the variable CHROMIUM may name another` };
  const browser = await chromium.launch({
    executablePath: EXECUTABLE,
    args: ['--no-sandbox', '--disable-gpu', '--disable-background-networking'],
  });
  const name = `Chromium ${browser.version()}`;
  const run = async () => {
    const server = await serve();
    try {
      const page = await browser.newPage();
      await page.goto(`http://127.0.0.1:${(server.address() as AddressInfo).port}/`);
      return (await page.evaluate(
        `import('/build/engines/in_page.js').then(({ bitsInPage }) => bitsInPage(${JSON.stringify(weightFiles())}))`,
      )) as Bits;
    } finally {
      server.close();
      await browser.close();
    }
  };
  return { name, run };
}

function weightFiles(): WeightFiles {
  const models = new URL('golden/models/', ROOT);
  const weights = (name: string) => readdirSync(new URL(name, models)).filter((file) => /^model.*\.safetensors$/.test(file));
  return Object.fromEntries(readdirSync(models).map((name) => [name, weights(name)]));
}

/** Serves an empty page and, beside it, the built library and the golden models, to this machine only. */
async function serve(): Promise<Server> {
  const server = createServer(async (request, response) => {
    // The parser has taken every `..` out of the path.
    // A page of its own has memory that threads may share.
    response.setHeader('cross-origin-opener-policy', 'same-origin').setHeader('cross-origin-embedder-policy', 'require-corp');
    const { pathname } = new URL(request.url ?? '/', 'http://127.0.0.1');
    if (pathname === '/') return response.setHeader('content-type', 'text/html').end('<!doctype html><title>digests</title>');
    const body = SERVED.test(pathname) ? await readFile(new URL(`.${pathname}`, ROOT)).catch(() => null) : null;
    if (body === null) return response.writeHead(404).end();
    return response.setHeader('content-type', TYPES[extname(pathname)] ?? 'application/octet-stream').end(body);
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  return server;
}
