import { execFile } from 'node:child_process';
import { existsSync } from 'node:fs';
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { promisify } from 'node:util';
import { expect, it } from 'vitest';
import { repository, temporaryFolder } from './support/models.ts';

it('the first library example of README.md runs as it stands', async () => {
  const built = repository('dist/index.js');
  if (!existsSync(built)) throw new Error('there is no dist/index.js: run `npm run build` before this test');
  const readme = await readFile(repository('README.md'), 'utf8');
  const blocks = [...readme.matchAll(/^```ts\n(.*?)^```/gms)].map((match) => match[1]!);
  const example = blocks.find((block) => block.includes("from 'olmo-hybrid'"));
  if (example === undefined) throw new Error("README.md has no ```ts block that imports from 'olmo-hybrid'");
  expect(example.trim().split('\n').length).toBeLessThanOrEqual(15);

  // The example is both TypeScript and JavaScript, so that every Node can run it.
  const file = join(await temporaryFolder(), 'example.mjs');
  await writeFile(file, example.replace("from 'olmo-hybrid'", `from ${JSON.stringify(pathToFileURL(built).href)}`));
  const { stdout, stderr } = await promisify(execFile)(process.execPath, [file]);
  expect(stderr).toBe('');
  expect(stdout.split(/\s+/).length).toBeGreaterThan(10);
});
