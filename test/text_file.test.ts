import { execFileSync } from 'node:child_process';
import { mkdir, open, symlink } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { readChatTemplate } from '../src/chat_template.ts';
import { ConfigError, TokenizerError } from '../src/errors.ts';
import { readGenerationConfig } from '../src/generation_config.ts';
import { readConfig } from '../src/load.ts';
import { Tokenizer } from '../src/tokenizer.ts';
import { temporaryFolder } from './support/models.ts';

const files: [name: string, read: (folder: string) => Promise<unknown>, most: number, Failure: typeof ConfigError][] = [
  ['config.json', readConfig, 1, ConfigError],
  ['generation_config.json', (folder) => readGenerationConfig(folder), 1, ConfigError],
  ['tokenizer_config.json', readChatTemplate, 16, TokenizerError],
  ['chat_template.jinja', readChatTemplate, 16, TokenizerError],
  ['tokenizer.json', Tokenizer.fromFolder, 256, TokenizerError],
];

describe.each(files)('%s', (name, read, most, Failure) => {
  const refusal = async (make: (path: string) => Promise<unknown>): Promise<string> => {
    const folder = await temporaryFolder();
    await make(join(folder, name));
    const error: unknown = await read(folder).catch((error: unknown) => error);
    expect(error).toBeInstanceOf(Failure);
    return (error as Error).message;
  };

  test('that is no regular file is not opened', async () => {
    expect(await refusal((path) => mkdir(path))).toContain(`${name}: expected a readable file, found a folder. `);
    if (process.platform === 'win32') return;
    const found = `${name}: expected a readable file, found something that is not a regular file. `;
    expect(await refusal(async (path) => execFileSync('mkfifo', [path]))).toContain(found);
    expect(await refusal((path) => symlink('/dev/zero', path))).toContain(found);
  }, 5000);

  test('that is too large is not read', async () => {
    const bytes = most * 2 ** 20 + 1;
    const message = await refusal(async (path) => {
      const file = await open(path, 'w');
      await file.truncate(bytes); // takes no disk
      await file.close();
    });
    expect(message).toContain(`${name}: expected a file of at most ${most} MiB, found ${bytes} bytes. `);
  });
});
